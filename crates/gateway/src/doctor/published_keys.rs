//! The keys that issuers publish: there, and of use.

use futures_util::future::join_all;

use super::Finding;
use crate::config::Auth;
use crate::token::{FetchError, KeySet};

const CHECK: &str = "published_keys";

/// Fetches every JWK set once, the way a node does.
pub(super) async fn examine(auth: &Auth) -> Vec<Finding> {
    let sets = auth.issuers.iter().flat_map(|issuer| &issuer.key_sets);
    join_all(sets.map(async |set| judge(set, set.fetch_once().await))).await
}

fn judge(set: &KeySet, outcome: Result<usize, FetchError>) -> Finding {
    let place = set.place();
    match outcome {
        Ok(0) => Finding::warning(
            CHECK,
            format!("{place}: no key of use"),
            "a key that verifies signatures, with an algorithm that is allowed",
            "compare its keys with `algorithms`; secrets (oct) and private keys are never taken from a set",
        ),
        Ok(keys) => Finding::ok(CHECK, format!("{place}: keys of use: {keys}")),
        Err(error) => Finding::warning(
            CHECK,
            format!("{place} cannot be fetched from here: {error}"),
            "a JWK set, within 5 s, without a redirect",
            "see that nodes reach it; one that starts is not ready before it has its keys",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::doctor::Severity;
    use crate::token::{PUBLIC_ALGORITHMS, Place};

    #[test]
    fn keys_that_cannot_be_had_or_used_are_a_warning() {
        let set =
            KeySet::new(Place::Url("https://a/".to_owned()), PUBLIC_ALGORITHMS, Duration::from_secs(60));
        let severity = |outcome| judge(&set, outcome).severity;
        assert_eq!(severity(Ok(2)), Severity::Ok);
        assert_eq!(severity(Ok(0)), Severity::Warning);
        assert_eq!(severity(Err(FetchError::TooSlow)), Severity::Warning);
    }
}
