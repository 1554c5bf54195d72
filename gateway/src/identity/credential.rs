//! Finds the credential in a request's headers.

use axum::http::{HeaderMap, HeaderName, header};

/// The credential of a request; `None` if there is none, or several, or one that is not text.
pub fn of_headers(headers: &HeaderMap) -> Option<&str> {
    let bearer = single(headers, &header::AUTHORIZATION);
    let key = single(headers, &HeaderName::from_static("x-api-key"));
    match (bearer, key) {
        (Some(authorization), None) => {
            let (scheme, credential) = authorization.split_once(' ')?;
            Some(credential.trim()).filter(|text| scheme.eq_ignore_ascii_case("bearer") && !text.is_empty())
        }
        (None, Some(key)) => Some(key.trim()).filter(|text| !text.is_empty()),
        _ => None,
    }
}

/// The value of a header that occurs once.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).into_iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        // Of two values neither is used.
        (Some(_), Some(_)) => Some(""),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[(&'static str, &str)]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        of_headers(&headers).map(str::to_owned)
    }

    #[test]
    fn exactly_one_credential_is_taken() {
        assert_eq!(of(&[("authorization", "bearer  abc")]).as_deref(), Some("abc"));
        assert_eq!(of(&[("x-api-key", "abc")]).as_deref(), Some("abc"));
        for none in [
            &[][..],
            &[("authorization", "Basic abc")],
            &[("authorization", "Bearer ")],
            &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
            &[("authorization", "Bearer a"), ("x-api-key", "b")],
        ] {
            assert_eq!(of(none), None, "{none:?}");
        }
    }
}
