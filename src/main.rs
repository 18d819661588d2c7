//! The `hebbian` command; see `hebbian --help`.

fn main() -> std::process::ExitCode {
    hebbian::cli::main()
}
