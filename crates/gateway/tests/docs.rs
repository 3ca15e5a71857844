//! The documents name every key and every series there is, and no others.

use std::collections::BTreeSet;

use causeway_gateway::config::Given;
use causeway_gateway::metrics::{Metrics, NodeReport};

/// The first code spans of the table rows of `document` below its heading `heading`.
fn documented(document: &str, heading: &str) -> BTreeSet<String> {
    let section = document.split(heading).nth(1).expect("the document has this heading");
    let section = section.split("\n## ").next().unwrap_or(section);
    let first_cells = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    first_cells
        .flat_map(|cell| cell.split(", "))
        .map(|name| name.trim_matches('`').split('{').next().unwrap_or_default().to_owned())
        .collect()
}

/// The paths of all values below `value`, keys joined by dots. Lists count as values.
fn paths(prefix: &str, value: &serde_json::Value) -> BTreeSet<String> {
    match value {
        serde_json::Value::Object(table) => {
            let below = |(key, value): (&String, _)| paths(&format!("{prefix}.{key}"), value);
            table.iter().flat_map(below).collect()
        }
        _ => BTreeSet::from([prefix.trim_start_matches('.').to_owned()]),
    }
}

#[test]
fn every_key_of_the_configuration_is_documented() {
    let given = serde_json::to_value(Given::default()).unwrap();
    let document = include_str!("../../../docs/configuration.md");
    assert_eq!(documented(document, "## Every key"), paths("", &given));
}

#[test]
fn every_series_is_documented() {
    let text =
        String::from_utf8(Metrics::new(&["orders".to_owned()]).render(&NodeReport::default())).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let document = include_str!("../../../docs/operations.md");
    assert_eq!(documented(document, "## Metrics"), names.map(str::to_owned).collect());
}
