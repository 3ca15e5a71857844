//! nginx's configuration, read as far as it matters to a node behind it, and judged.
//!
//! Wanted is the location that a request for `/v1/connect` ends in, in every server that passes it on, and what holds
//! there: a directive holds in the blocks below it unless one of them has its own. No file is opened for an
//! `include`: `nginx -T` prints them all.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Finding, Severity};
use crate::config::Given;
use crate::public::CONNECT_PATH;

mod text;

use text::Directive;

/// What nginx waits for if it is not told (`proxy_read_timeout`, `proxy_send_timeout`).
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// The variables that hold a token when a client puts it where it belongs.
const TOKEN_VARIABLES: &[&str] =
    &["http_authorization", "http_cookie", "http_sec_websocket_protocol", "sent_http_set_cookie"];
/// The variables that hold the query.
const QUERY_VARIABLES: &[&str] = &["request", "request_uri", "args", "query_string"];

/// A block and those around it, the outermost first.
type Place<'a> = Vec<&'a Directive>;

/// Judges the text of a configuration.
pub(super) fn examine(text: &str, given: &Given) -> Vec<Finding> {
    let main = match text::read(text) {
        Ok(directives) => Directive::main(directives),
        Err(fault) => {
            return vec![Finding::error(
                "nginx",
                fault.to_string(),
                "a configuration of nginx",
                "see what `nginx -t` says",
            )];
        }
    };
    let places = connect_places(&main);
    let mut findings = Vec::new();
    if has_includes(&main) {
        findings.push(Finding::note(
            "nginx",
            "the file includes others, which were not given",
            "the whole configuration",
            "give the output of `nginx -T`",
        ));
    }
    if places.is_empty() {
        findings.push(Finding::error(
            "nginx",
            format!("no location passes {CONNECT_PATH} on to a node"),
            format!("location = {CONNECT_PATH} {{ proxy_pass …; }}"),
            "see nginx/causeway.conf for a whole configuration",
        ));
        return findings;
    }
    findings.extend(trusted_proxies(given));
    for place in &places {
        findings.extend(timeouts(place, given));
        findings.push(upgrade(&main, place));
        findings.push(forwarded_for(place));
        findings.push(logs(&main, place, given));
    }
    findings.extend(shutdown(&main, given));
    findings
}

/// In each server, the location for `/v1/connect`, where it passes requests on.
fn connect_places(main: &Directive) -> Vec<Place<'_>> {
    let mut servers = Vec::new();
    find_blocks(main, &mut vec![main], &|block| block.name == "server", &mut servers);
    servers.iter().filter_map(connect_location).filter(|place| holds(place, "proxy_pass").is_some()).collect()
}

fn connect_location<'a>(server: &Place<'a>) -> Option<Place<'a>> {
    let mut locations = Vec::new();
    let block = server.last()?;
    find_blocks(block, &mut server.clone(), &|block| block.name == "location", &mut locations);
    let rated = locations.into_iter().filter_map(|place| Some((rating(place.last()?)?, place)));
    rated.max_by_key(|(rating, _)| *rating).map(|(_, place)| place)
}

/// How well a location fits, by nginx's order: exact, `^~`, expressions, then the longest prefix.
fn rating(location: &Directive) -> Option<(u8, usize)> {
    let words: Vec<&str> = location.words.iter().map(String::as_str).collect();
    let prefix = |rank, path: &str| CONNECT_PATH.starts_with(path).then_some((rank, path.len()));
    match words[..] {
        ["=", path] => (path == CONNECT_PATH).then_some((3, 0)),
        ["^~", path] => prefix(2, path),
        // Expressions are not evaluated; one that names the path is taken to mean it.
        ["~" | "~*", expression] => expression.contains("v1/connect").then_some((1, 0)),
        [path] => prefix(0, path),
        _ => None,
    }
}

fn find_blocks<'a>(
    block: &'a Directive,
    place: &mut Place<'a>,
    is_wanted: &dyn Fn(&Directive) -> bool,
    found: &mut Vec<Place<'a>>,
) {
    for inner in block.block.iter().flatten().filter(|inner| inner.block.is_some()) {
        place.push(inner);
        if is_wanted(inner) {
            found.push(place.clone());
        }
        find_blocks(inner, place, is_wanted, found);
        place.pop();
    }
}

fn has_includes(block: &Directive) -> bool {
    let is_one = |inner: &Directive| {
        inner.name == "include" && inner.words.first().is_some_and(|file| !file.ends_with("mime.types"))
    };
    block.block.iter().flatten().any(|inner| is_one(inner) || has_includes(inner))
}

/// The directives of this name that hold at a place: those of the innermost block that has any.
fn holding<'a>(place: &Place<'a>, name: &str) -> Vec<&'a Directive> {
    let own = |block: &&'a Directive| {
        block.block.iter().flatten().filter(|inner| inner.name == name).collect::<Vec<_>>()
    };
    place.iter().rev().map(own).find(|found| !found.is_empty()).unwrap_or_default()
}

fn holds<'a>(place: &Place<'a>, name: &str) -> Option<&'a Directive> {
    holding(place, name).pop()
}

/// The value that nginx gives a header for the node.
fn header<'a>(place: &Place<'a>, name: &str) -> Option<&'a str> {
    holding(place, "proxy_set_header").into_iter().rev().find_map(|set| match &set.words[..] {
        [header, value] if header.eq_ignore_ascii_case(name) => Some(value.as_str()),
        _ => None,
    })
}

fn name_of(place: &Place<'_>) -> String {
    place.last().map_or_else(String::new, |location| {
        format!("line {}, location {}", location.line, location.words.join(" "))
    })
}

fn trusted_proxies(given: &Given) -> Option<Finding> {
    given.trusted_proxies.is_empty().then(|| {
        Finding::error(
            "nginx_trusted",
            "trusted_proxies is empty: all clients share nginx's address and its limits",
            "nginx's address, as the nodes see it",
            "add it to trusted_proxies",
        )
    })
}

/// An idle client is heard of once in a ping interval.
fn timeouts(place: &Place<'_>, given: &Given) -> Vec<Finding> {
    let check = "nginx_timeouts";
    let ping = given.heartbeat.ping_interval;
    let judge = |name: &str| {
        let set = holds(place, name).and_then(|set| set.words.first());
        let timeout = set.map_or(Some(TIMEOUT_DEFAULT), |given| text::time(given));
        let shown = set.map_or_else(|| "60s, nginx's default".to_owned(), Clone::clone);
        let found = format!("{}: {name} {shown}", name_of(place));
        let expected =
            format!("more than {}, twice heartbeat.ping_interval", humantime::format_duration(ping * 2));
        let advice = format!("{name} {}s;", (ping * 4).as_secs().max(120));
        match timeout {
            None => Finding::warning(check, format!("{found}, which is no time"), expected, advice),
            Some(timeout) if timeout <= ping => {
                Finding::error(check, format!("{found}: idle clients are cut"), expected, advice)
            }
            Some(timeout) if timeout <= ping * 2 => {
                Finding::warning(check, format!("{found}: one late ping cuts a client"), expected, advice)
            }
            Some(_) => Finding::ok(check, found),
        }
    };
    ["proxy_read_timeout", "proxy_send_timeout"].map(judge).into()
}

/// An upgrade must reach the node, and no other protocol may be asked for.
fn upgrade(main: &Directive, place: &Place<'_>) -> Finding {
    let check = "nginx_upgrade";
    let location = name_of(place);
    let expected = "HTTP/1.1, Upgrade: websocket and Connection: upgrade for the node";
    let version = holds(place, "proxy_http_version").and_then(|set| set.words.first()).map(String::as_str);
    if version != Some("1.1") {
        let found = format!("{location}: proxy_http_version {}", version.unwrap_or("is not set"));
        return Finding::error(check, found, expected, "proxy_http_version 1.1;");
    }
    let connection =
        header(place, "connection").map(|value| possible_values(main, value)).unwrap_or_default();
    if !connection.iter().any(|value| value.eq_ignore_ascii_case("upgrade") || value.starts_with('$')) {
        let found = format!("{location}: Connection is not passed on as upgrade");
        return Finding::error(check, found, expected, "proxy_set_header Connection upgrade;");
    }
    let Some(upgrade) = header(place, "upgrade") else {
        let found = format!("{location}: Upgrade is not passed on");
        return Finding::error(check, found, expected, "proxy_set_header Upgrade websocket;");
    };
    let values = possible_values(main, upgrade);
    if values.iter().all(|value| value.is_empty() || value.eq_ignore_ascii_case("websocket")) {
        return Finding::ok(check, format!("{location}: no other upgrade than websocket is passed on"));
    }
    Finding::warning(
        check,
        format!("{location}: Upgrade {upgrade} passes on what the client asks for"),
        expected,
        "map $http_upgrade to websocket or nothing, as nginx/causeway.conf does",
    )
}

/// What a value may come to: where it is the variable of a `map`, all that the map may yield.
fn possible_values(main: &Directive, value: &str) -> BTreeSet<String> {
    let mut maps = Vec::new();
    find_blocks(main, &mut vec![main], &|block| block.name == "map", &mut maps);
    let map = maps
        .iter()
        .filter_map(|place| place.last())
        .find(|map| map.words.get(1).is_some_and(|yields| yields == value));
    let Some(map) = map else { return BTreeSet::from([value.to_owned()]) };
    map.block.iter().flatten().filter_map(|entry| entry.words.last().cloned()).collect()
}

fn forwarded_for(place: &Place<'_>) -> Finding {
    let check = "nginx_client_address";
    let location = name_of(place);
    let expected = "X-Forwarded-For set to the address of nginx's peer";
    let advice = "proxy_set_header X-Forwarded-For $remote_addr;";
    match header(place, "x-forwarded-for") {
        Some("$remote_addr" | "$realip_remote_addr" | "$proxy_protocol_addr") => {
            Finding::ok(check, format!("{location}: the node hears whom nginx speaks with"))
        }
        Some("$proxy_add_x_forwarded_for") => Finding::note(
            check,
            format!("{location}: what the client claims is kept, and nginx's peer added behind it"),
            expected,
            format!("{advice} (a node reads from the right, so nothing can be gained by claims)"),
        ),
        Some(value) => {
            let found = format!("{location}: X-Forwarded-For is {value}");
            Finding::warning(check, found, expected, advice)
        }
        None => Finding::error(
            check,
            format!("{location}: X-Forwarded-For is passed on as the client wrote it"),
            expected,
            advice,
        ),
    }
}

/// What is written to disk beside a request.
fn logs(main: &Directive, place: &Place<'_>, given: &Given) -> Finding {
    let formats: Vec<&str> = match &holding(place, "access_log")[..] {
        [] => vec!["combined"],
        logs => logs
            .iter()
            .filter(|log| log.words.first().is_none_or(|file| file != "off"))
            .map(format_of)
            .collect(),
    };
    let found = formats.iter().map(|format| judge_format(main, format, &name_of(place), given));
    found
        .max_by_key(|finding| finding.severity)
        .unwrap_or_else(|| Finding::ok("nginx_logs", format!("{}: no access log", name_of(place))))
}

fn format_of<'a>(log: &&'a Directive) -> &'a str {
    log.words.get(1).filter(|word| !word.contains('=')).map_or("combined", String::as_str)
}

fn judge_format(main: &Directive, format: &str, location: &str, given: &Given) -> Finding {
    let check = "nginx_logs";
    let expected = "a log_format without queries and without headers that carry tokens";
    let advice = "log $request_method and $uri instead, as nginx/causeway.conf does";
    let variables = format_variables(main, format);
    let among = |names: &[&str]| variables.iter().find(|name| names.contains(&name.as_str())).cloned();
    let token =
        among(TOKEN_VARIABLES).or_else(|| variables.iter().find(|name| name.starts_with("cookie_")).cloned());
    let query =
        among(QUERY_VARIABLES).or_else(|| variables.iter().find(|name| name.starts_with("arg_")).cloned());
    let found = |variable: &str| format!("{location}: log_format {format} writes ${variable}");
    match (token, query) {
        (Some(variable), _) => {
            Finding::error(check, format!("{}: tokens are on disk", found(&variable)), expected, advice)
        }
        (None, Some(variable)) => Finding {
            severity: if given.auth.query_token { Severity::Error } else { Severity::Note },
            ..Finding::note(
                check,
                match given.auth.query_token {
                    true => format!("{}, and auth.query_token is on: tokens are on disk", found(&variable)),
                    false => format!(
                        "{}, with the query: a token that a client puts there is on disk",
                        found(&variable)
                    ),
                },
                expected,
                advice,
            )
        },
        (None, None) => {
            Finding::ok(check, format!("{location}: log_format {format} writes no query and no token"))
        }
    }
}

/// The names of the variables in a log format.
fn format_variables(main: &Directive, format: &str) -> BTreeSet<String> {
    let mut http = Vec::new();
    find_blocks(main, &mut vec![main], &|block| block.name == "http", &mut http);
    let blocks = http.iter().filter_map(|place| place.last().copied()).chain([main]);
    let directives = blocks.flat_map(|block| block.block.iter().flatten());
    let mut definitions = directives
        .filter(|inner| inner.name == "log_format" && inner.words.first().is_some_and(|name| name == format));
    match definitions.next() {
        Some(definition) => text::variables(&definition.words[1..].concat()),
        // Predefined, and a name that is not defined nginx itself refuses.
        None if format == "combined" => BTreeSet::from(["request".to_owned()]),
        None => BTreeSet::new(),
    }
}

/// After a reload, old workers must live as long as a drain takes, or sockets end without a close.
fn shutdown(main: &Directive, given: &Given) -> Option<Finding> {
    let check = "nginx_reload";
    let set = holds(&vec![main], "worker_shutdown_timeout")?.words.first()?;
    let drain = given.drain.lead_time + given.drain.window;
    let found = format!("worker_shutdown_timeout {set}");
    Some(match text::time(set) {
        Some(timeout) if timeout >= drain => Finding::ok(check, found),
        _ => Finding::warning(
            check,
            format!("{found}: after `nginx -s reload`, clients are cut without a close"),
            format!("at least {}, drain.lead_time and drain.window", humantime::format_duration(drain)),
            "worker_shutdown_timeout 1h;",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The configuration that is shipped.
    const SHIPPED: &str = include_str!("../../../../nginx/causeway.conf");

    fn given() -> Given {
        Given { trusted_proxies: vec!["10.0.0.1/32".parse().unwrap()], ..Given::default() }
    }

    /// The severity of each check that is not ok, for the shipped configuration with one text replaced.
    fn faults(shipped: &str, changed: &str, given: &Given) -> Vec<(&'static str, Severity)> {
        assert!(SHIPPED.contains(shipped), "{shipped}");
        let findings = examine(&SHIPPED.replacen(shipped, changed, 1), given);
        assert!(findings.len() >= 5, "{findings:?}");
        let is_fault = |finding: &Finding| finding.severity > Severity::Ok;
        findings.into_iter().filter(is_fault).map(|finding| (finding.check, finding.severity)).collect()
    }

    #[test]
    fn the_shipped_configuration_is_without_fault() {
        assert_eq!(faults("", "", &given()), []);
    }

    #[test]
    fn each_fault_is_found() {
        use Severity::{Error, Note, Warning};
        for (shipped, changed, check, severity) in [
            ("proxy_read_timeout 120s", "proxy_read_timeout 25s", "nginx_timeouts", Error),
            ("proxy_read_timeout 120s", "proxy_read_timeout 50s", "nginx_timeouts", Warning),
            ("proxy_send_timeout 120s", "proxy_send_timeout soon", "nginx_timeouts", Warning),
            ("Upgrade         $upgrade_to_node", "Upgrade $http_upgrade", "nginx_upgrade", Warning),
            ("\\|websocket$\" websocket", "\\|\" $http_upgrade", "nginx_upgrade", Warning),
            ("proxy_set_header Upgrade         $upgrade_to_node;", "", "nginx_upgrade", Error),
            ("proxy_set_header Connection      $connection_to_node;", "", "nginx_upgrade", Error),
            ("proxy_http_version    1.1;", "", "nginx_upgrade", Error),
            (
                "X-Forwarded-For $remote_addr",
                "X-Forwarded-For $proxy_add_x_forwarded_for",
                "nginx_client_address",
                Note,
            ),
            (
                "X-Forwarded-For $remote_addr",
                "X-Forwarded-For $http_x_forwarded_for",
                "nginx_client_address",
                Warning,
            ),
            ("proxy_set_header X-Forwarded-For $remote_addr;", "", "nginx_client_address", Error),
            ("$request_method $uri", "$request", "nginx_logs", Note),
            ("$request_method $uri", "$request_method $uri ${arg_access_token}", "nginx_logs", Note),
            ("$request_method $uri", "$http_sec_websocket_protocol", "nginx_logs", Error),
            ("access.log causeway;", "access.log;", "nginx_logs", Note),
            ("worker_shutdown_timeout 1h", "worker_shutdown_timeout 4s", "nginx_reload", Warning),
        ] {
            assert_eq!(faults(shipped, changed, &given()), [(check, severity)], "{shipped} → {changed}");
        }
    }

    #[test]
    fn what_the_nodes_are_told_is_held_against_it() {
        use Severity::{Error, Note, Warning};
        let mut slow = given();
        slow.heartbeat.ping_interval = Duration::from_secs(60);
        assert_eq!(faults("", "", &slow), [("nginx_timeouts", Warning); 2]);
        assert_eq!(faults("", "", &Given::default()), [("nginx_trusted", Error)]);
        let mut careless = given();
        careless.auth.query_token = true;
        assert_eq!(faults("$request_method $uri", "$request", &careless), [("nginx_logs", Error)]);
        assert_eq!(faults("$request_method $uri", "$request", &given()), [("nginx_logs", Note)]);
    }

    #[test]
    fn the_location_that_counts_is_the_one_that_nginx_would_take() {
        let location = |locations: &str| {
            let main = Directive::main(text::read(&format!("http {{ server {{ {locations} }} }}")).unwrap());
            connect_places(&main).first().map(|place| place.last().unwrap().words.join(" "))
        };
        let proxied = |head: &str| format!("location {head} {{ proxy_pass http://node; }}");
        let all = ["/", "/v1/", "~ ^/v1/connect", "^~ /v1/c", "= /v1/connect"].map(proxied);
        for count in 1..=all.len() {
            let expected = all[count - 1].split(['{']).next().unwrap().trim().trim_start_matches("location ");
            assert_eq!(location(&all[..count].concat()).as_deref(), Some(expected));
        }
        assert_eq!(location(&proxied("/v2/")), None);
        assert_eq!(location("location / { return 404; }"), None);
    }

    #[test]
    fn what_is_no_configuration_is_said() {
        for text in ["http {", "}", "listen 80", "a \"b"] {
            assert_eq!(examine(text, &given())[0].severity, Severity::Error, "{text}");
        }
        assert_eq!(examine("events {}", &given())[0].severity, Severity::Error);
        let included = "http { include /etc/nginx/conf.d/*.conf; }";
        assert_eq!(examine(included, &given())[0].severity, Severity::Note);
    }
}
