//! Which pages may connect. A browser names the page's origin in every upgrade, and page scripts cannot forge
//! it; this is what keeps a foreign page from using a visitor's credentials (RFC 6455 §10.2).

use actix_http::header::{self, HeaderMap, HeaderValue};

use crate::rejection::Rejection;

/// The origins that are let in.
#[derive(Clone, Debug)]
pub enum AllowedOrigins {
    /// Any page.
    Any,
    /// The pages of these origins, compared byte for byte.
    Only(Vec<Box<str>>),
}

impl AllowedOrigins {
    /// Checks the request's `Origin`. A request without one does not come from a page and is let in, unless
    /// `is_required`.
    ///
    /// # Errors
    /// [`Rejection::OriginNotAllowed`].
    pub(crate) fn check(&self, headers: &HeaderMap, is_required: bool) -> Result<(), Rejection> {
        let is_allowed = self.allowed_origin(headers).is_some();
        let is_absent = !headers.contains_key(header::ORIGIN);
        (is_allowed || (is_absent && !is_required)).then_some(()).ok_or(Rejection::OriginNotAllowed)
    }

    /// The request's one `Origin`, if it has one and it is let in.
    pub(crate) fn allowed_origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let mut origins = headers.get_all(header::ORIGIN);
        let (origin, None) = (origins.next()?, origins.next()) else { return None };
        let is_allowed = match self {
            Self::Any => true,
            Self::Only(allowed) => allowed.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes()),
        };
        is_allowed.then_some(origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_origin_is_let_in() {
        let allowed = AllowedOrigins::Only(vec!["https://app.example.com".into()]);
        let check = |origin: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            allowed.check(&headers, false).is_ok()
        };
        assert!(check("https://app.example.com"));
        for foreign in [
            "null",
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.test",
            "https://evil-app.example.com",
            "https://APP.example.com",
            "https://app.example.com/",
        ] {
            assert!(!check(foreign), "{foreign}");
        }
        assert!(allowed.check(&HeaderMap::new(), false).is_ok());
        assert!(allowed.check(&HeaderMap::new(), true).is_err());
    }
}
