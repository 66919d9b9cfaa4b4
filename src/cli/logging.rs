//! Logging: to stderr, never to stdout.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format;

use super::output;
use super::visible::{self, JsonLines};

/// How to log.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to log, such as `info`, `debug` or `warn,backstitch::engine=debug`.
    #[arg(long, env = "RUST_LOG", global = true, value_name = "FILTER")]
    log: Option<String>,
    /// How log lines look.
    #[arg(
        long,
        env = "BACKSTITCH_LOG_FORMAT",
        global = true,
        value_enum,
        default_value_t
    )]
    log_format: Format,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// How much is logged when nobody says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Volume {
    /// What is done, and what goes wrong.
    Deeds,
    /// What goes wrong.
    Troubles,
    /// Nothing.
    Nothing,
}

/// Starts logging.
pub(super) fn start(arguments: &Arguments, volume: Volume) {
    // The driver repeats at `info` what the server remarks on each migration; what it remarks in
    // passing is of no use to whoever runs a command. The AMQP one calls it an error that a queue
    // or exchange one asks for is not there; what it means for us is logged by `broker`.
    let default = match volume {
        Volume::Deeds => "info,sqlx=warn,lapin=off",
        Volume::Troubles => "warn,sqlx=error,lapin=off",
        Volume::Nothing => "off",
    };
    let wanted = arguments.log.as_deref().filter(|text| !text.is_empty());
    let filter = EnvFilter::try_new(wanted.unwrap_or(default)).unwrap_or_else(|error| {
        output::remark(format_args!(
            "warning: the log filter can't be read ({error}); logging `{default}`"
        ));
        EnvFilter::new(default)
    });
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // Fails only if logging was started before, which is as good.
    let _ = match arguments.log_format {
        Format::Text => subscriber
            .with_writer(std::io::stderr)
            .fmt_fields(format::debug_fn(write_field).delimited(" "))
            .try_init(),
        Format::Json => subscriber
            .with_writer(|| JsonLines(std::io::stderr()))
            .json()
            .flatten_event(true)
            .try_init(),
    };
}

/// One field of a log line, which nothing in it can end or recolour.
fn write_field(
    writer: &mut format::Writer<'_>,
    field: &tracing::field::Field,
    value: &dyn std::fmt::Debug,
) -> std::fmt::Result {
    let value = visible::line(&format!("{value:?}"));
    match field.name() {
        "message" => write!(writer, "{value}"),
        name => write!(writer, "{name}={value}"),
    }
}
