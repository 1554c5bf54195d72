//! Path and query parameters: validated here once, and carried by the event as its `params`.

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, Path, Query, RawPathParams};
use axum::http::Uri;
use axum::http::request::Parts;
use pipeline::{Params, Token};
use serde_json::Value;

use crate::problem::Problem;
use crate::spec::{QueryKind, QueryParam};

/// Adds the parameters of the path: each must be a token, so that it can name a record or a point.
///
/// # Errors
/// 400 naming the parameter, its value and the rule.
pub fn of_path(raw: Result<RawPathParams, RawPathParamsRejection>, params: &mut Params) -> Result<(), Problem> {
    let raw = raw.map_err(|_| not_utf8())?;
    for (name, value) in &raw {
        params.insert(name.to_owned(), Value::from(token(name, value)?.as_str()));
    }
    Ok(())
}

fn not_utf8() -> Problem {
    Problem::malformed("bad_parameter", "the path contains a percent-encoding that is not UTF-8")
}

/// The one parameter of a built-in path as text, not validated yet. axum's own extractor would answer a path that is
/// not UTF-8 with a plain text instead of a problem.
pub struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(text) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| not_utf8())?;
        Ok(Self(text))
    }
}

/// Validates one token.
///
/// # Errors
/// 400 naming it, its value and the rule.
pub fn token(name: &str, value: &str) -> Result<Token, Problem> {
    Token::new(value).map_err(|why| {
        let shown: String = value.chars().take(80).collect();
        Problem::malformed("bad_parameter", format!("{name} {shown:?} {why}"))
    })
}

/// Adds the declared parameters of the query; others are ignored: browsers and proxies add some of their own.
///
/// # Errors
/// 400 naming the parameter, its value and the limits.
pub fn of_query(uri: &Uri, declared: &[QueryParam], params: &mut Params) -> Result<(), Problem> {
    if declared.is_empty() {
        return Ok(());
    }
    let Query(given) = Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| {
        Problem::malformed("bad_parameter", "the query string is malformed: write it as name=value pairs")
    })?;
    for param in declared {
        let mut values = given.iter().filter(|(name, _)| *name == param.name).map(|(_, value)| value.as_str());
        let value = values.next();
        if values.next().is_some() {
            let detail = format!("query parameter {} is given more than once: give it once", param.name);
            return Err(Problem::malformed("bad_parameter", detail));
        }
        if let Some(value) = check(param, value)? {
            params.insert(param.name.clone(), value);
        }
    }
    Ok(())
}

fn check(param: &QueryParam, given: Option<&str>) -> Result<Option<Value>, Problem> {
    let shown: String = given.unwrap_or_default().chars().take(80).collect();
    let wrong = |rule: String| {
        Err(Problem::malformed(
            "bad_parameter",
            format!("query parameter {} is {shown:?}: {rule} is needed", param.name),
        ))
    };
    match &param.kind {
        QueryKind::Integer { default, min, max } => {
            let Some(given) = given else { return Ok(default.map(Value::from)) };
            match given.parse::<i64>() {
                Ok(number) if (*min..=*max).contains(&number) => Ok(Some(Value::from(number))),
                _ => wrong(range(*min, *max)),
            }
        }
        QueryKind::Text { default, max_length, one_of } => {
            let Some(given) = given else { return Ok(default.clone().map(Value::from)) };
            if !one_of.is_empty() && !one_of.iter().any(|allowed| allowed == given) {
                return wrong(format!("one of {}", one_of.join(", ")));
            }
            if given.len() > *max_length || given.chars().any(char::is_control) {
                return wrong(format!("text of at most {max_length} bytes without control characters"));
            }
            Ok(Some(Value::from(given)))
        }
    }
}

fn range(min: i64, max: i64) -> String {
    match (min, max) {
        (i64::MIN, i64::MAX) => "a whole number".into(),
        (i64::MIN, max) => format!("a whole number of at most {max}"),
        (min, i64::MAX) => format!("a whole number of at least {min}"),
        (min, max) => format!("a whole number from {min} to {max}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit() -> Vec<QueryParam> {
        vec![QueryParam { name: "limit".into(), kind: QueryKind::Integer { default: Some(10), min: 1, max: 100 } }]
    }

    #[test]
    fn an_absent_parameter_has_its_default() {
        let mut params = Params::new();
        of_query(&"/s".parse().unwrap(), &limit(), &mut params).unwrap();
        assert_eq!(params["limit"], 10);
    }

    #[test]
    fn an_undeclared_parameter_is_ignored() {
        let mut params = Params::new();
        of_query(&"/s?other=1&limit=100".parse().unwrap(), &limit(), &mut params).unwrap();
        assert_eq!(params, Params::from([("limit".to_owned(), Value::from(100))]));
    }

    #[test]
    fn a_parameter_that_is_given_twice_is_refused() {
        let problem = of_query(&"/s?limit=1&limit=2".parse().unwrap(), &limit(), &mut Params::new()).unwrap_err();
        assert!(problem.to_string().contains("limit is given more than once"), "{problem}");
    }

    #[test]
    fn a_value_outside_its_limits_is_refused() {
        for bad in ["0", "101", "abc", "", "1e3", "99999999999999999999", "%00"] {
            let uri = format!("/s?limit={bad}").parse().unwrap();
            let problem = of_query(&uri, &limit(), &mut Params::new()).unwrap_err();
            assert!(problem.to_string().contains("from 1 to 100"), "{problem}");
        }
    }
}
