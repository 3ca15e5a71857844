//! The parts that reports are made of: which figures each may have, and how they follow from what was found.

use std::time::Duration;

use super::Report;
use super::figure::{self, Figure};
use crate::histogram::Counts;
use crate::observer::{Mark, Sighting};
use crate::outcome::Outcome;
use crate::pace::Pace;
use crate::process::Reading;
use crate::scratch::Traffic;
use crate::wall::Signs;

/// A process that waits for a CPU longer than this share of the time says so.
const STARVED: f64 = 0.1;

/// The figures of one part.
pub(crate) type Section = &'static [&'static Figure];

/// Everybody comes together.
pub(crate) const ARRIVAL: Section =
    &[&figure::CONNECTIONS, &figure::CPU_PER_ACCEPT, &figure::CPU_PER_SUBSCRIBE, &figure::KIB_PER_CONNECTION];
/// Nothing happens.
pub(crate) const IDLE: Section = &[&figure::CPU_PER_IDLE_CONNECTION_SECOND];
/// Messages and how long they took.
pub(crate) const MESSAGES: Section = &[
    &figure::IN_FLIGHT,
    &figure::RATE,
    &figure::PUBLISHED,
    &figure::PUBLISHED_PER_SECOND,
    &figure::DELIVERED,
    &figure::DELIVERIES_PER_SECOND,
    &figure::BYTES_PER_DELIVERY,
    &figure::SAVED,
    &figure::CPU_PER_DELIVERY,
    &figure::MEMORY_AFTER,
    &figure::P50,
    &figure::P90,
    &figure::P99,
    &figure::P999,
    &figure::MAX,
    &figure::ACKNOWLEDGED_P99,
];
/// Whether everybody heard everything.
pub(crate) const TRUTH: Section = &[
    &figure::LOST,
    &figure::MISSED_IN_GAP,
    &figure::MISSED_AWAY,
    &figure::DUPLICATED,
    &figure::REORDERED,
    &figure::MISROUTED,
    &figure::LATE,
    &figure::GAPS,
    &figure::STALLS,
    &figure::ENDED,
];
/// The server's processes.
pub(crate) const SERVER: Section = &[&figure::SERVER_BUSY, &figure::SERVER_RESIDENT];
/// The load tester itself.
pub(crate) const LOAD: Section =
    &[&figure::LOAD_BUSY, &figure::LOOP_BUSY, &figure::LAG_P99, &figure::OVERDUE_P99];
/// What the nodes count themselves.
pub(crate) const NODES: Section = &[
    &figure::NODE_RECEIVED,
    &figure::NODE_SENT,
    &figure::NODE_SENT_MIB,
    &figure::NODE_DROPPED,
    &figure::NODE_GAPS,
    &figure::NODE_ACCEPTED,
    &figure::NODE_REFUSED,
    &figure::NODE_CLOSED,
    &figure::NODE_REDIS_RECONNECTS,
];
/// What all scenarios have that deliver messages.
pub(crate) const DELIVERING: [Section; 6] = [ARRIVAL, MESSAGES, TRUTH, SERVER, LOAD, NODES];
/// New people, one after the other.
pub(crate) const CONNECTING: Section = &[
    &figure::CONNECTIONS,
    &figure::UPGRADES,
    &figure::UPGRADES_PER_SECOND,
    &figure::OPEN_P50,
    &figure::OPEN_P99,
    &figure::OPEN_MAX,
    &figure::REFUSED,
    &figure::ENDED,
    &figure::CPU_PER_UPGRADE,
];
/// People who went and came back.
pub(crate) const RETURNING: Section = &[
    &figure::RETURNED,
    &figure::REFUSED,
    &figure::AWAY,
    &figure::RETURN_P50,
    &figure::RETURN_P99,
    &figure::RETURN_MAX,
    &figure::ALL_BACK,
];
/// A quiet topic beside a hot one.
pub(crate) const FAIRNESS: Section = &[
    &figure::QUIET_P50,
    &figure::QUIET_P99,
    &figure::QUIET_MAX,
    &figure::PING_P50,
    &figure::PING_P99,
    &figure::PING_MAX,
    &figure::OPEN_P50,
    &figure::OPEN_P99,
    &figure::OPEN_MAX,
];
/// What nodes take from Redis.
pub(crate) const INTAKE: Section = &[&figure::INTAKE_PER_SECOND, &figure::CPU_PER_MESSAGE];
/// Without a gateway.
pub(crate) const FLOOR: Section = &[
    &figure::SOCKETS,
    &figure::FRAMES_PER_WRITE,
    &figure::FRAME_BYTES,
    &figure::CPU_PER_WRITE,
    &figure::CPU_PER_FRAME,
];

/// The figures of `sections`.
pub(crate) fn figures(sections: &[Section]) -> Vec<&'static Figure> {
    sections.concat()
}

/// How messages were to follow one another.
pub(crate) fn pace(report: &mut Report, pace: Pace) {
    match pace {
        Pace::Open { rate, .. } => report.figure(&figure::RATE, rate),
        Pace::Closed(in_flight) => report.figure(&figure::IN_FLIGHT, in_flight as f64),
        Pace::FlatOut | Pace::Silent => {}
    }
}

/// Everything that follows from a run that delivers messages.
pub(crate) fn delivering(report: &mut Report, outcome: &Outcome, seen: &Sighting) {
    arrival(report, outcome, seen);
    messages(report, outcome, seen);
    truth(report, outcome);
    server(report, seen);
    load(report, outcome, seen);
    nodes(report, seen);
}

/// [`ARRIVAL`].
pub(crate) fn arrival(report: &mut Report, outcome: &Outcome, seen: &Sighting) {
    report.figure(&figure::CONNECTIONS, outcome.connections as f64);
    let others = others(outcome, seen);
    report.cpu_per(&figure::CPU_PER_ACCEPT, seen.server(Mark::First, Mark::Opened), others);
    report.cpu_per(&figure::CPU_PER_SUBSCRIBE, seen.server(Mark::Opened, Mark::Subscribed), others);
    report.resident_per(&figure::KIB_PER_CONNECTION, seen.server(Mark::First, Mark::Subscribed), others);
}

/// Those who came after [`Mark::First`]: each process sends one ahead.
pub(crate) fn others(outcome: &Outcome, seen: &Sighting) -> f64 {
    outcome.connections.saturating_sub(seen.processes as u64) as f64
}

fn messages(report: &mut Report, outcome: &Outcome, seen: &Sighting) {
    let seconds = outcome.measured.as_secs_f64();
    report.figure(&figure::PUBLISHED, outcome.published as f64);
    report.figure(&figure::PUBLISHED_PER_SECOND, outcome.published as f64 / seconds);
    report.figure(&figure::DELIVERED, outcome.delivered as f64);
    report.figure(&figure::DELIVERIES_PER_SECOND, outcome.delivered as f64 / seconds);
    bytes(report, outcome);
    let server = seen.server(Mark::Start, Mark::End);
    report.cpu_per(&figure::CPU_PER_DELIVERY, server, outcome.delivered as f64);
    let others = others(outcome, seen);
    report.resident_per(&figure::MEMORY_AFTER, seen.server(Mark::First, Mark::End), others);
    let latency = outcome.timeline.latency();
    for (figure, share) in [
        (&figure::P50, 0.5),
        (&figure::P90, 0.9),
        (&figure::P99, 0.99),
        (&figure::P999, 0.999),
        (&figure::MAX, 1.0),
    ] {
        quantile(report, figure, &latency, share);
    }
    quantile(report, &figure::ACKNOWLEDGED_P99, &outcome.acknowledged, 0.99);
}

/// What deliveries are on the wire, and what compressed messages would have been besides.
fn bytes(report: &mut Report, outcome: &Outcome) {
    let Traffic { wire_bytes, deflated_bytes, plain_bytes } = outcome.traffic;
    if outcome.delivered > 0 {
        report.figure(&figure::BYTES_PER_DELIVERY, wire_bytes as f64 / outcome.delivered as f64);
    }
    if plain_bytes > 0 {
        report.figure(&figure::SAVED, 100.0 * (1.0 - deflated_bytes as f64 / plain_bytes as f64));
    }
}

fn truth(report: &mut Report, outcome: &Outcome) {
    let tally = outcome.tally;
    for (figure, count) in [
        (&figure::LOST, tally.lost),
        (&figure::MISSED_IN_GAP, tally.missed_in_gap),
        (&figure::MISSED_AWAY, tally.missed_away),
        (&figure::DUPLICATED, tally.duplicated),
        (&figure::REORDERED, tally.reordered),
        (&figure::MISROUTED, outcome.misrouted),
        (&figure::LATE, tally.late),
        (&figure::GAPS, outcome.gaps),
        (&figure::STALLS, outcome.stalls),
        (&figure::ENDED, outcome.ended),
    ] {
        report.figure(figure, count as f64);
    }
}

/// [`SERVER`].
pub(crate) fn server(report: &mut Report, seen: &Sighting) {
    report.busy(&figure::SERVER_BUSY, seen.server(Mark::Start, Mark::End));
    if let Some((_, Reading { resident_bytes, .. })) = seen.server(Mark::Start, Mark::End) {
        report.figure(&figure::SERVER_RESIDENT, resident_bytes as f64 / 1_048_576.0);
    }
}

/// [`LOAD`], and whether the load tester was the wall.
pub(crate) fn load(report: &mut Report, outcome: &Outcome, seen: &Sighting) {
    report.busy(&figure::LOAD_BUSY, seen.load(Mark::Start, Mark::End));
    report.figure(&figure::LOOP_BUSY, 100.0 * outcome.busy);
    quantile(report, &figure::LAG_P99, &outcome.lag, 0.99);
    quantile(report, &figure::OVERDUE_P99, &outcome.overdue, 0.99);
    let p99 = |counts: &Counts| counts.quantile(0.99);
    let server_busy = report.value(figure::SERVER_BUSY.key).map(|percent| percent / 100.0);
    let signs = Signs {
        load_busy: outcome.busy,
        server_busy,
        lag: p99(&outcome.lag).unwrap_or_default(),
        latency: p99(&outcome.timeline.latency()),
        asked: outcome.asked,
        published: outcome.published,
        overdue: p99(&outcome.overdue).unwrap_or_default(),
    };
    report.set_wall(Some(signs.judge()));
    if outcome.starved > STARVED {
        let percent = (100.0 * outcome.starved).round();
        report.note(format!("The load tester waited for a CPU {percent} % of the time: others use this machine too, and latencies are longer for it."));
    }
    seen.blind.iter().for_each(|blind| report.note(blind.clone()));
}

/// [`NODES`].
pub(crate) fn nodes(report: &mut Report, seen: &Sighting) {
    const MIB: f64 = 1_048_576.0;
    for (figure, series, unit) in [
        (&figure::NODE_RECEIVED, "causeway_messages_received_total", 1.0),
        (&figure::NODE_SENT, "causeway_messages_sent_total", 1.0),
        (&figure::NODE_SENT_MIB, "causeway_bytes_sent_total", MIB),
        (&figure::NODE_DROPPED, "causeway_messages_dropped_total", 1.0),
        (&figure::NODE_GAPS, "causeway_gaps_total", 1.0),
        (&figure::NODE_ACCEPTED, "causeway_upgrades_accepted_total", 1.0),
        (&figure::NODE_REFUSED, "causeway_upgrades_refused_total", 1.0),
        (&figure::NODE_CLOSED, "causeway_connections_closed_total", 1.0),
        (&figure::NODE_REDIS_RECONNECTS, "causeway_redis_reconnects_total", 1.0),
    ] {
        let growths = seen.scrapes.iter().filter_map(|(before, after)| after.growth(before, series));
        if let Some(growth) = growths.reduce(|sum, growth| sum + growth) {
            report.figure(figure, growth / unit);
        }
    }
}

/// [`CONNECTING`].
pub(crate) fn connecting(report: &mut Report, outcome: &Outcome, seen: &Sighting) {
    report.figure(&figure::CONNECTIONS, outcome.connections as f64);
    report.figure(&figure::UPGRADES, outcome.upgrades as f64);
    report.figure(&figure::UPGRADES_PER_SECOND, outcome.upgrades as f64 / outcome.measured.as_secs_f64());
    opening(report, outcome);
    report.figure(&figure::REFUSED, outcome.refused as f64);
    report.figure(&figure::ENDED, outcome.ended as f64);
    let server = seen.server(Mark::Start, Mark::End);
    report.cpu_per(&figure::CPU_PER_UPGRADE, server, outcome.upgrades as f64);
}

fn opening(report: &mut Report, outcome: &Outcome) {
    for (figure, share) in [(&figure::OPEN_P50, 0.5), (&figure::OPEN_P99, 0.99), (&figure::OPEN_MAX, 1.0)] {
        quantile(report, figure, &outcome.opening, share);
    }
}

/// [`RETURNING`].
pub(crate) fn returning(report: &mut Report, outcome: &Outcome) {
    report.figure(&figure::RETURNED, outcome.returned as f64);
    report.figure(&figure::REFUSED, outcome.refused as f64);
    report.figure(&figure::AWAY, outcome.away as f64);
    for (figure, share) in
        [(&figure::RETURN_P50, 0.5), (&figure::RETURN_P99, 0.99), (&figure::RETURN_MAX, 1.0)]
    {
        quantile(report, figure, &outcome.returning, share);
    }
    if let Some(all_back) = outcome.all_back.filter(|_| outcome.away == 0) {
        report.figure(&figure::ALL_BACK, all_back.as_secs_f64());
    }
}

/// [`FAIRNESS`].
pub(crate) fn fairness(report: &mut Report, outcome: &Outcome) {
    for (figure, counts, share) in [
        (&figure::QUIET_P50, &outcome.quiet, 0.5),
        (&figure::QUIET_P99, &outcome.quiet, 0.99),
        (&figure::QUIET_MAX, &outcome.quiet, 1.0),
        (&figure::PING_P50, &outcome.pings, 0.5),
        (&figure::PING_P99, &outcome.pings, 0.99),
        (&figure::PING_MAX, &outcome.pings, 1.0),
    ] {
        quantile(report, figure, counts, share);
    }
    opening(report, outcome);
}

/// [`INTAKE`]: each message has one subscriber, so what a node takes is what it delivers or announces; its own count,
/// where it can be read, is of the whole run.
pub(crate) fn intake(report: &mut Report, outcome: &Outcome, seen: &Sighting) {
    let rate = outcome.delivered as f64 / outcome.measured.as_secs_f64();
    report.figure(&figure::INTAKE_PER_SECOND, rate);
    let server = seen.server(Mark::Start, Mark::End);
    report.cpu_per(&figure::CPU_PER_MESSAGE, server, outcome.delivered as f64);
}

fn quantile(report: &mut Report, figure: &'static Figure, counts: &Counts, share: f64) {
    if let Some(duration) = counts.quantile(share) {
        report.figure(figure, duration.div_duration_f64(Duration::from_millis(1)));
    }
}
