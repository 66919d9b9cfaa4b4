//! The program: everything is in the library, so that tests can reach it.

/// The usual one keeps what was freed for the thread that took it, which bodies of many small values
/// multiply by the number of threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    backstitch::cli::main()
}
