//! How far the run is: a bar for people, a number for whoever waits for a point in the run.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;

/// How often the bar is drawn anew even if nothing ends.
const REDRAW_EVERY: Duration = Duration::from_millis(200);

/// Counts the sagas that ended.
pub(super) struct Progress {
    bar: ProgressBar,
    ended: watch::Sender<usize>,
    orders: usize,
}

impl Progress {
    /// The bar is on stderr, and not there at all if that is no terminal.
    pub(super) fn new(orders: usize) -> Self {
        let bar = ProgressBar::new(orders as u64);
        let style = ProgressStyle::with_template(
            "{msg} {wide_bar:.green/dim} {pos}/{len} sagas, {per_sec}",
        );
        // A template that can't be read leaves the default style.
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_message("selling");
        bar.enable_steady_tick(REDRAW_EVERY);
        Self {
            bar,
            ended: watch::channel(0).0,
            orders,
        }
    }

    /// So many have ended.
    pub(super) fn at(&self, ended: usize) {
        self.ended.send_replace(ended);
        self.bar.set_position(ended as u64);
    }

    /// Waits until a share of the sagas has ended.
    pub(super) async fn reaches(&self, percent: usize) {
        let wanted = self.orders * percent / 100;
        let mut ended = self.ended.subscribe();
        // Fails only when the sender is gone, and `self` holds it.
        let _ = ended.wait_for(|ended| *ended >= wanted).await;
    }

    /// Says what is being done.
    pub(super) fn say(&self, what: &'static str) {
        self.bar.set_message(what);
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
