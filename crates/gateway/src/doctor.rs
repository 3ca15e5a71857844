//! What an operator should know before it hurts: the configuration held against the machine, Redis and the proxy.
//!
//! The facts come from others (the configuration, the broker's checkup, nginx's file, the node that runs); here
//! they are judged. Each finding says what was found, what was expected, and what to do.

use std::fmt;
use std::net::IpAddr;

use actix_http::header::{HeaderMap, HeaderName, HeaderValue};
use causeway_broker::RedisCheckup;
use causeway_protocol::Topic;
use serde::Serialize;

pub use crate::admission::Addresses;
use crate::client_addr::{PeerAddr, TrustedProxies};
use crate::config::{Config, Given};
use crate::descriptors;
use crate::origin::AllowedOrigins;

mod keys;
mod nginx;
mod published_keys;
mod redis;

/// As many connections from a single address are no coincidence any more.
const CROWD: usize = 20;

/// What is looked at besides the configuration.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// Who would hold a client's socket.
    pub peer: Option<IpAddr>,
    /// The `X-Forwarded-For` headers that would come with it.
    pub forwarded_for: Vec<String>,
    /// nginx's configuration, the text of its file.
    pub nginx: Option<String>,
    /// The topic whose channel is tried at Redis, instead of a reserved one.
    pub topic: Option<Topic>,
    /// What the node that runs said, if it was asked.
    pub live: Option<LiveNode>,
}

/// What a node that runs says of itself.
#[derive(Debug)]
pub enum LiveNode {
    /// It answers.
    Answers {
        /// Whether it is ready for clients.
        is_ready: bool,
        /// `ready`, or why it is not.
        cause: String,
        /// Where its clients come from, or why it does not say.
        addresses: Result<Addresses, String>,
    },
    /// It could not be asked, for this reason.
    Silent(String),
}

/// How bad it is. The highest of all findings decides the exit status of `causeway doctor`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Worth knowing; may be meant so.
    Note,
    /// Will hurt some day.
    Warning,
    /// Hurts now.
    Error,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub found: String,
    /// What was expected, where that is something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// All findings.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The worst of them.
    pub severity: Severity,
    /// In the order in which they were looked at.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Looks at everything that `surroundings` name. Asks Redis and whoever publishes keys, where there are such,
    /// and takes as long as that may. Within an actix system.
    pub async fn on(given: &Given, surroundings: &Surroundings) -> Self {
        let config = match Config::try_from(given) {
            Ok(config) => config,
            Err(error) => {
                let advice = "correct the key; `causeway check` shows what is in effect";
                return Self::from(vec![Finding::error(
                    "config",
                    error.to_string(),
                    "a usable configuration",
                    advice,
                )]);
            }
        };
        let mut findings = vec![Finding::ok("config", "the configuration is usable")];
        findings.extend(keys::examine(&given.auth));
        findings.extend(published_keys::examine(&config.auth).await);
        findings.extend([origins(&config.allowed_origins), admin(&config)]);
        findings.extend(client_address(given, surroundings));
        findings.extend(surroundings.live.iter().flat_map(|node| live(node, given)));
        findings.push(file_descriptors(descriptors::hard_limit(), given.limits.connections));
        if let Some(nginx) = &surroundings.nginx {
            findings.extend(nginx::examine(nginx, given));
        }
        findings.extend(match &config.redis {
            Some(redis) => {
                redis::examine(&RedisCheckup::of(redis, surroundings.topic.as_ref()).await, given.auth.leeway)
            }
            None => vec![Finding::note(
                "redis",
                "no redis.url: the node stands alone",
                "one Redis for all nodes",
                "set redis.url, unless there is only this node and nobody publishes but over HTTP",
            )],
        });
        Self::from(findings)
    }
}

impl From<Vec<Finding>> for Report {
    fn from(findings: Vec<Finding>) -> Self {
        let severity = findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok);
        Self { severity, findings }
    }
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, severity: Severity::Ok, found: found.into(), expected: None, advice: None }
    }

    fn note(
        check: &'static str,
        found: impl Into<String>,
        expected: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            check,
            severity: Severity::Note,
            found: found.into(),
            expected: Some(expected.into()),
            advice: Some(advice.into()),
        }
    }

    fn warning(
        check: &'static str,
        found: impl Into<String>,
        expected: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::note(check, found, expected, advice) }
    }

    fn error(
        check: &'static str,
        found: impl Into<String>,
        expected: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { severity: Severity::Error, ..Self::note(check, found, expected, advice) }
    }
}

fn origins(allowed: &AllowedOrigins) -> Finding {
    let check = "origins";
    match allowed {
        AllowedOrigins::Only(origins) if origins.is_empty() => Finding::note(
            check,
            "allowed_origins is empty: no page can connect",
            "the origins of the pages that connect",
            "name them in allowed_origins, unless no client is a page",
        ),
        AllowedOrigins::Only(origins) => {
            Finding::ok(check, format!("pages of {} may connect", origins.join(", ")))
        }
        AllowedOrigins::Any => Finding::note(
            check,
            "allowed_origins is *: any page may connect with a token it holds",
            "the origins of the pages that connect",
            "name them in allowed_origins",
        ),
    }
}

fn admin(config: &Config) -> Finding {
    let check = "admin";
    let addr = config.admin_listen;
    match (addr.ip().is_loopback(), &config.admin_token) {
        (_, Some(_)) => Finding::ok(check, format!("{addr}: who acts needs the token")),
        (true, None) => Finding::ok(check, format!("{addr}: only this machine")),
        (false, None) => Finding::note(
            check,
            format!("{addr}, and no token: /admin/… answers 403"),
            "admin.token or admin.token_file, where operators are to act",
            "set one, and let nobody reach this address from outside",
        ),
    }
}

/// Whom a node takes for the client, when this peer comes with these headers.
fn client_address(given: &Given, surroundings: &Surroundings) -> Option<Finding> {
    let check = "client_address";
    let peer = surroundings.peer?.to_canonical();
    let mut headers = HeaderMap::new();
    for hops in &surroundings.forwarded_for {
        let Ok(hops) = HeaderValue::from_str(hops) else {
            let advice = "ask with the header as the proxy sends it";
            return Some(Finding::error(
                check,
                "what --forwarded-for holds is no header",
                "addresses",
                advice,
            ));
        };
        headers.append(HeaderName::from_static("x-forwarded-for"), hops);
    }
    let client = TrustedProxies::new(given.trusted_proxies.clone()).client_of(PeerAddr(peer), &headers);
    let is_trusted = |addr: IpAddr| given.trusted_proxies.iter().any(|network| network.contains(&addr));
    let found = format!("{peer} counts as the client {client}");
    Some(match (is_trusted(peer), surroundings.forwarded_for.is_empty()) {
        (false, false) => Finding::warning(
            check,
            format!("{found}: it is no trusted proxy, so its X-Forwarded-For is passed over"),
            "the address of the client behind the proxy",
            format!(
                "add {peer} to trusted_proxies if it is your proxy: all its clients share one address now"
            ),
        ),
        (true, true) => Finding::warning(
            check,
            format!("{found}: it is a trusted proxy and sends no X-Forwarded-For"),
            "a proxy that names its client",
            "have the proxy set X-Forwarded-For to the address of its peer",
        ),
        (true, false) if is_trusted(client.network()) => Finding::warning(
            check,
            format!("{found}, which is a trusted proxy itself"),
            "the address of the client behind the proxies",
            "have the outermost proxy set X-Forwarded-For, and trust only proxies",
        ),
        _ => Finding::ok(check, found),
    })
}

/// How the node that runs is.
fn live(node: &LiveNode, given: &Given) -> Vec<Finding> {
    let check = "node";
    let (is_ready, cause, addresses) = match node {
        LiveNode::Answers { is_ready, cause, addresses } => (is_ready, cause, addresses),
        LiveNode::Silent(error) => {
            let advice = "see that it runs, and that admin_listen names it";
            return vec![Finding::error(
                check,
                format!("the node does not answer: {error}"),
                "an answer",
                advice,
            )];
        }
    };
    let readiness = match is_ready {
        true => Finding::ok(check, "the node is ready"),
        false => {
            Finding::error(check, format!("the node is not ready: {cause}"), "ready", "see to the cause")
        }
    };
    let seen = match addresses {
        Ok(seen) => crowds(seen, given),
        Err(refusal) => Finding::note(
            "addresses_seen",
            format!("the node does not say where its clients come from: {refusal}"),
            "an answer",
            "run this with the configuration, and so with the admin.token, of the node",
        ),
    };
    vec![readiness, seen]
}

/// Where the clients of the node that runs come from.
fn crowds(seen: &Addresses, given: &Given) -> Finding {
    let check = "addresses_seen";
    let Addresses { connections, addresses, busiest, busiest_connections } = seen;
    let found = format!("{connections} connections from {addresses} addresses");
    match busiest {
        Some(busiest) if *connections >= CROWD && busiest_connections * 2 > *connections => Finding::warning(
            check,
            format!("{found}, {busiest_connections} of them from {busiest}"),
            "no address with more than half of all connections",
            format!(
                "if {busiest} is a proxy, add it to trusted_proxies ({}): its clients share one address and \
                 limits.connections_per_ip, {}",
                if given.trusted_proxies.is_empty() { "empty now" } else { "it is not there now" },
                given.limits.connections_per_ip
            ),
        ),
        _ => Finding::ok(check, found),
    }
}

fn file_descriptors(hard_limit: Option<usize>, connections: usize) -> Finding {
    let check = "descriptors";
    let needed = descriptors::needed(connections);
    match hard_limit {
        Some(limit) if limit < needed => Finding::error(
            check,
            format!("at most {limit} file descriptors (the hard limit where this command runs)"),
            format!("{needed}: limits.connections, and some more"),
            "raise it (ulimit -Hn, LimitNOFILE= of systemd, ulimits of a container) or lower limits.connections",
        ),
        Some(limit) => {
            Finding::ok(check, format!("{limit} file descriptors, {needed} are needed at the most"))
        }
        None => Finding::ok(check, "no limit on file descriptors"),
    }
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// For people: a line for each finding, what was expected and what to do below it, and a count at the end.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{:<8} {:<20} {}", finding.severity.name(), finding.check, finding.found)?;
            for (label, words) in [("expected", &finding.expected), ("do", &finding.advice)] {
                if let Some(words) = words {
                    writeln!(f, "{:<8} {:<20} {label}: {words}", "", "")?;
                }
            }
        }
        let count = |severity| self.findings.iter().filter(|finding| finding.severity == severity).count();
        let severities = [Severity::Ok, Severity::Note, Severity::Warning, Severity::Error];
        f.write_str(&severities.map(|severity| format!("{} {}", count(severity), severity.name())).join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn severity_of_client(trusted: &[&str], peer: &str, forwarded_for: &[&str]) -> (Severity, String) {
        let given = Given {
            trusted_proxies: trusted.iter().map(|network| network.parse().unwrap()).collect(),
            ..Given::default()
        };
        let surroundings = Surroundings {
            peer: Some(peer.parse().unwrap()),
            forwarded_for: forwarded_for.iter().map(|&hops| hops.to_owned()).collect(),
            ..Surroundings::default()
        };
        let finding = client_address(&given, &surroundings).unwrap();
        (finding.severity, finding.found)
    }

    #[test]
    fn the_client_is_found_behind_the_proxies_or_it_is_said_why_not() {
        let trusted = ["10.0.0.0/8"];
        for (peer, forwarded_for, severity, found) in [
            ("1.2.3.4", &[][..], Severity::Ok, "the client 1.2.3.4"),
            ("10.0.0.1", &["1.2.3.4"], Severity::Ok, "the client 1.2.3.4"),
            ("10.0.0.1", &["6.6.6.6, 1.2.3.4, 10.0.0.2"], Severity::Ok, "the client 1.2.3.4"),
            ("1.2.3.4", &["6.6.6.6"], Severity::Warning, "passed over"),
            ("10.0.0.1", &[], Severity::Warning, "sends no X-Forwarded-For"),
            ("10.0.0.1", &["10.0.0.2"], Severity::Warning, "a trusted proxy itself"),
            ("10.0.0.1", &["not an address"], Severity::Warning, "a trusted proxy itself"),
        ] {
            let judged = severity_of_client(&trusted, peer, forwarded_for);
            assert_eq!(judged.0, severity, "{peer} {forwarded_for:?}");
            assert!(judged.1.contains(found), "{}", judged.1);
        }
    }

    #[test]
    fn each_connection_needs_a_descriptor() {
        assert_eq!(file_descriptors(Some(1_325), 1_000).severity, Severity::Ok);
        assert_eq!(file_descriptors(Some(1_324), 1_000).severity, Severity::Error);
        assert_eq!(file_descriptors(None, 1_000).severity, Severity::Ok);
    }

    #[test]
    fn a_crowd_behind_one_address_is_a_forgotten_proxy() {
        let seen = |connections, busiest_connections| Addresses {
            connections,
            addresses: 2,
            busiest: Some("10.0.0.1".to_owned()),
            busiest_connections,
        };
        assert_eq!(crowds(&seen(100, 51), &Given::default()).severity, Severity::Warning);
        assert_eq!(crowds(&seen(100, 50), &Given::default()).severity, Severity::Ok);
        assert_eq!(crowds(&seen(2, 2), &Given::default()).severity, Severity::Ok);
    }

    #[test]
    fn the_worst_finding_decides() {
        let ok = || Finding::ok("a", "b");
        assert_eq!(Report::from(vec![]).severity, Severity::Ok);
        let report = Report::from(vec![ok(), Finding::warning("a", "b", "c", "d"), ok()]);
        assert_eq!(report.severity, Severity::Warning);
        assert!(report.to_string().ends_with("2 ok, 0 note, 1 warning, 0 error"));
    }
}
