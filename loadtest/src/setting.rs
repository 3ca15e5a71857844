//! What a run was: the command line that made it, without its secrets, and the machine it was made on.

use std::fs;
use std::time::SystemTime;

/// Options whose values nobody else must read.
const SECRET_OPTIONS: [&str; 2] = ["--secret", "--token"];
const HIDDEN: &str = "…";

/// Where and how a report came about.
#[derive(Debug)]
pub(crate) struct Setting {
    /// As it could be typed again.
    pub(crate) command: String,
    /// When it ended.
    pub(crate) at: String,
    /// Lines for people: what it is, and what of it.
    pub(crate) machine: Vec<(&'static str, String)>,
}

impl Setting {
    /// Of this process, now.
    pub(crate) fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let memory = read("/proc/meminfo");
        let memory_kib =
            memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
        let memory_gib = memory_kib.and_then(|kib| kib.parse::<f64>().ok()).map(|kib| kib / 1_048_576.0);
        let cpus = std::thread::available_parallelism().map_or(0, usize::from);
        let machine = vec![
            ("processor", model.map_or("unknown", |(_, model)| model).to_owned()),
            ("CPUs it may use", cpus.to_string()),
            ("memory", memory_gib.map_or_else(String::new, |gib| format!("{gib:.1} GiB"))),
            ("system", format!("Linux {}", read("/proc/sys/kernel/osrelease").trim())),
            ("load tester", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        let at = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        Self { command: command(std::env::args().skip(1)), at, machine }
    }
}

/// The command line, quoted for a shell.
fn command(args: impl Iterator<Item = String>) -> String {
    let mut command = "causeway-loadtest".to_owned();
    let mut is_secret = false;
    for arg in args {
        let shown = if is_secret { HIDDEN.to_owned() } else { without_secret(&arg) };
        is_secret = SECRET_OPTIONS.contains(&arg.as_str());
        command.push(' ');
        command.push_str(&quoted(&shown));
    }
    command
}

/// `--token=…`, and the password of an address.
fn without_secret(arg: &str) -> String {
    if let Some((option, _)) = arg.split_once('=').filter(|(option, _)| SECRET_OPTIONS.contains(option)) {
        return format!("{option}={HIDDEN}");
    }
    match (arg.find("://"), arg.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => format!("{}{HIDDEN}{}", &arg[..scheme + 3], &arg[at..]),
        _ => arg.to_owned(),
    }
}

fn quoted(arg: &str) -> String {
    let is_plain = |char: char| char.is_alphanumeric() || "-_./:=,@+%…[]".contains(char);
    if !arg.is_empty() && arg.chars().all(is_plain) {
        return arg.to_owned();
    }
    format!("'{}'", arg.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(args: &[&str]) -> String {
        command(args.iter().map(|arg| (*arg).to_owned()))
    }

    #[test]
    fn a_command_can_be_typed_again() {
        assert_eq!(
            shown(&["fanout", "--expect", "p99<50ms"]),
            "causeway-loadtest fanout --expect 'p99<50ms'"
        );
        assert_eq!(shown(&["it's", ""]), r"causeway-loadtest 'it'\''s' ''");
    }

    #[test]
    fn secrets_are_not_shown() {
        let given = ["--secret", "s3", "--token=s3", "--redis", "redis://me:s3@127.0.0.1", "--kid", "main"];
        let shown = shown(&given);
        assert!(!shown.contains("s3"), "{shown}");
        assert!(shown.ends_with("--redis redis://…@127.0.0.1 --kid main"), "{shown}");
    }
}
