//! Collecting the process's metrics for `/metrics`.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::metric;

/// Upper bounds of the duration histograms, in seconds: a commit takes a millisecond, a saga may
/// take minutes.
const SECONDS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 600.0,
];
/// Upper bounds of the batch sizes.
const INPUTS: [f64; 8] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0];

/// Installs the process's recorder; to be called once, before anything is counted.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)?
        .set_buckets_for_metric(Matcher::Suffix("_inputs".to_owned()), &INPUTS)?
        .install_recorder()?;
    metric::describe();
    Ok(handle)
}
