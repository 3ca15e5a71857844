//! What Redis lets us do and how it is set, judged.

use std::time::Duration;

use causeway_broker::{Asked, RedisCheckup, RedisCheckupError, Right};

use super::Finding;

/// The oldest Redis that is supported.
const MAJOR_MIN: u32 = 6;
/// What Redis should keep for a node that does not read for a moment: its own default.
const BUFFER_BYTES_MIN: u64 = 32 << 20;

/// Judges a look at Redis. Clocks may be as far apart as `leeway`.
pub(super) fn examine(checkup: &Result<RedisCheckup, RedisCheckupError>, leeway: Duration) -> Vec<Finding> {
    match checkup {
        Err(error) => vec![Finding::error(
            "redis",
            format!("Redis cannot be reached: {error}"),
            "an answer",
            "see that it runs, that redis.url names it, and that its user and password are right",
        )],
        Ok(checkup) => vec![
            link(checkup),
            version(checkup.version.as_deref()),
            rights(checkup),
            user(&checkup.user),
            output_buffer(&checkup.output_buffer_limit),
            clock(&checkup.clock_ahead_ms, leeway),
        ],
    }
}

fn link(checkup: &RedisCheckup) -> Finding {
    Finding::ok("redis", format!("answers in {:.1} ms", checkup.round_trip.as_secs_f64() * 1000.0))
}

fn version(version: Option<&str>) -> Finding {
    let check = "redis_version";
    let expected = format!("{MAJOR_MIN} or later");
    let major = version.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    match (version, major) {
        (Some(version), Some(major)) if major >= MAJOR_MIN => Finding::ok(check, format!("Redis {version}")),
        (Some(version), Some(_)) => Finding::error(check, format!("Redis {version}"), expected, "update it"),
        (found, _) => Finding::note(
            check,
            format!("a version that cannot be read: {}", found.unwrap_or("none")),
            expected,
            "see what it is",
        ),
    }
}

fn rights(checkup: &RedisCheckup) -> Finding {
    let check = "redis_rights";
    let refused = checkup.rights.iter().filter_map(|Right { command, place, refusal }| {
        refusal.as_ref().map(|refusal| format!("{command} on `{place}`: {refusal}"))
    });
    let refused: Vec<_> = refused.collect();
    if refused.is_empty() {
        let tried =
            checkup.rights.iter().map(|Right { command, place, .. }| format!("{command} on `{place}`"));
        return Finding::ok(check, format!("may {}", tried.collect::<Vec<_>>().join(", ")));
    }
    Finding::error(
        check,
        refused.join("; "),
        "the commands that the broker needs, on every channel behind redis.topic_prefix, and on keys there that \
         begin with `_causeway.`",
        "ACL SETUSER … +subscribe +unsubscribe +publish +ping +unwatch +xadd +xrange, &prefix* for the channels \
         and ~prefix_causeway.* for the keys; where only some topics are meant to be allowed, name one with --topic",
    )
}

fn user(user: &Asked<String>) -> Finding {
    let check = "redis_user";
    match user {
        Asked::Told(user) if user == "default" => Finding::note(
            check,
            "the user `default`, who may do everything unless that was changed",
            "a user who may do what the broker needs and no more",
            "make one with ACL SETUSER and name it in redis.url",
        ),
        Asked::Told(user) => Finding::ok(check, format!("the user `{user}`")),
        Asked::NotAllowed => Finding::ok(check, "a user who may not ask for its own name"),
        Asked::Unclear(answer) => unclear(check, "ACL WHOAMI", answer),
    }
}

fn output_buffer(limit: &Asked<String>) -> Finding {
    let check = "redis_output_buffer";
    let expected = "client-output-buffer-limit pubsub 32mb 8mb 60, or more";
    let advice =
        "CONFIG SET client-output-buffer-limit \"pubsub 33554432 8388608 60\", and the same in redis.conf";
    let limit = match limit {
        Asked::Told(limit) => limit,
        Asked::NotAllowed => {
            return Finding::note(
                check,
                "our user may not ask for it (CONFIG GET)",
                expected,
                "have somebody look who may: redis-cli CONFIG GET client-output-buffer-limit",
            );
        }
        Asked::Unclear(answer) => return unclear(check, "CONFIG GET", answer),
    };
    match pubsub_hard_limit(limit) {
        Some(0) => Finding::warning(
            check,
            "no limit: a node that does not read can take all of Redis's memory",
            expected,
            advice,
        ),
        Some(bytes) if bytes < BUFFER_BYTES_MIN => Finding::warning(
            check,
            format!("{bytes} bytes: a burst cuts nodes off, which costs clients a gap"),
            expected,
            advice,
        ),
        Some(bytes) => Finding::ok(check, format!("{bytes} bytes for each node that reads slowly")),
        None => unclear(check, "CONFIG GET", limit),
    }
}

/// The hard limit, in bytes, of `normal 0 0 0 … pubsub 33554432 8388608 60`.
fn pubsub_hard_limit(limits: &str) -> Option<u64> {
    let mut words = limits.split_whitespace().skip_while(|word| *word != "pubsub").skip(1);
    words.next()?.parse().ok()
}

fn clock(ahead_ms: &Asked<i64>, leeway: Duration) -> Finding {
    let check = "clock";
    let expected = format!("clocks that agree within auth.leeway, {} s", leeway.as_secs_f64());
    match ahead_ms {
        Asked::Told(ahead_ms) if u128::from(ahead_ms.unsigned_abs()) > leeway.as_millis() => {
            let side = if *ahead_ms > 0 { "ahead of" } else { "behind" };
            Finding::warning(
                check,
                format!("Redis's clock is {:.1} s {side} ours", ahead_ms.unsigned_abs() as f64 / 1000.0),
                expected,
                "have both machines keep time (NTP): tokens expire by the clock of this one",
            )
        }
        Asked::Told(ahead_ms) => Finding::ok(check, format!("{} ms from Redis's clock", ahead_ms.abs())),
        Asked::NotAllowed => Finding::note(
            check,
            "our user may not ask for Redis's time (TIME)",
            expected,
            "see that this machine keeps time (NTP)",
        ),
        Asked::Unclear(answer) => unclear(check, "TIME", answer),
    }
}

fn unclear(check: &'static str, command: &str, answer: &str) -> Finding {
    Finding::note(
        check,
        format!("{command} was answered with: {answer}"),
        "an answer as Redis gives it",
        "look at it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn the_version_is_recent_enough() {
        assert_eq!(version(Some("7.0.15")).severity, Severity::Ok);
        assert_eq!(version(Some("5.0.7")).severity, Severity::Error);
        assert_eq!(version(Some("unstable")).severity, Severity::Note);
        assert_eq!(version(None).severity, Severity::Note);
    }

    #[test]
    fn the_buffer_for_slow_nodes_is_neither_small_nor_endless() {
        let told = |pubsub: &str| {
            let limit = format!("normal 0 0 0 slave 268435456 67108864 60 pubsub {pubsub}");
            output_buffer(&Asked::Told(limit)).severity
        };
        assert_eq!(told("33554432 8388608 60"), Severity::Ok);
        assert_eq!(told("1048576 524288 5"), Severity::Warning);
        assert_eq!(told("0 0 0"), Severity::Warning);
        assert_eq!(output_buffer(&Asked::Told("nonsense".to_owned())).severity, Severity::Note);
        assert_eq!(output_buffer(&Asked::NotAllowed).severity, Severity::Note);
    }

    #[test]
    fn clocks_may_be_as_far_apart_as_the_leeway() {
        let leeway = Duration::from_secs(5);
        for (ahead_ms, severity) in [
            (0, Severity::Ok),
            (-4_900, Severity::Ok),
            (5_100, Severity::Warning),
            (-90_000, Severity::Warning),
        ] {
            assert_eq!(clock(&Asked::Told(ahead_ms), leeway).severity, severity, "{ahead_ms}");
        }
    }
}
