//! What a request says about its webhook: whom to tell its result, in headers of our own or of Gotenberg's clients.
//!
//! What the config does not allow is refused here where this process knows it. Whether an address may be called in the end
//! is decided by whoever calls it, when it is called: what a name leads to changes.

use axum::http::{HeaderMap, Uri};
use pipeline::Params;
use pipeline::webhook::{Caller, WEBHOOK_PARAM, Webhook};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::problem::Problem;

/// Longest address.
const MOST_URL_BYTES: usize = 2 << 10;
/// Headers that a webhook may be told with.
const MOST_HEADERS: usize = 16;

/// Whose headers were used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `Caudal-Webhook-…`
    Own,
    /// `Gotenberg-Webhook-…`: its clients take 204 for "it will be told".
    Gotenberg,
}

/// Notes the webhook of a request in its parameters; `None` where it has none.
///
/// # Errors
/// 400 naming the header.
pub fn note(headers: &HeaderMap, params: &mut Params, caller: Option<&dyn Caller>) -> Result<Option<Dialect>, Problem> {
    for (dialect, prefix) in [(Dialect::Own, "caudal"), (Dialect::Gotenberg, "gotenberg")] {
        let given = Given { headers, prefix };
        if let Some(webhook) = given.read()? {
            let read = Webhook::deserialize(&webhook).map_err(|why| given.wrong("url", &why.to_string()))?;
            if let Some(caller) = caller {
                read.check(caller).map_err(Problem::from)?;
            }
            params.insert(WEBHOOK_PARAM.into(), webhook);
            return Ok(Some(dialect));
        }
    }
    Ok(None)
}

struct Given<'h> {
    headers: &'h HeaderMap,
    prefix: &'static str,
}

impl Given<'_> {
    fn read(&self) -> Result<Option<Value>, Problem> {
        let Some(url) = self.url("url")? else { return Ok(None) };
        let mut webhook = json!({ "url": url, "method": self.method("method")?, "headers": self.extra()? });
        if let Some(url) = self.url("error-url")? {
            webhook["error_url"] = Value::from(url);
            webhook["error_method"] = Value::from(self.method("error-method")?);
        }
        Ok(Some(webhook))
    }

    fn name(&self, what: &str) -> String {
        format!("{}-webhook-{what}", self.prefix)
    }

    fn wrong(&self, what: &str, why: &str) -> Problem {
        Problem::malformed("bad_webhook", format!("the header {} {why}", self.name(what)))
    }

    fn text(&self, what: &str) -> Result<Option<&str>, Problem> {
        let Some(value) = self.headers.get(self.name(what)) else { return Ok(None) };
        let text = value.to_str().map_err(|_| self.wrong(what, "is not ASCII"))?.trim();
        Ok((!text.is_empty()).then_some(text))
    }

    fn url(&self, what: &str) -> Result<Option<&str>, Problem> {
        let Some(text) = self.text(what)? else { return Ok(None) };
        if text.len() > MOST_URL_BYTES {
            return Err(self.wrong(what, &format!("has {} bytes, at most {MOST_URL_BYTES} are taken", text.len())));
        }
        let uri: Option<Uri> = text.parse().ok();
        let is_http = uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
        if is_http { Ok(Some(text)) } else { Err(self.wrong(what, "is no http or https address")) }
    }

    fn method(&self, what: &str) -> Result<&str, Problem> {
        match self.text(what)? {
            None => Ok("POST"),
            Some(method @ ("POST" | "PUT" | "PATCH")) => Ok(method),
            Some(_) => Err(self.wrong(what, "takes POST, PUT or PATCH")),
        }
    }

    /// Headers for whoever is told, as a JSON object of texts.
    fn extra(&self) -> Result<Map<String, Value>, Problem> {
        const WHAT: &str = "extra-http-headers";
        let Some(text) = self.text(WHAT)? else { return Ok(Map::new()) };
        let wrong = || self.wrong(WHAT, &format!("takes a JSON object of at most {MOST_HEADERS} texts"));
        let headers: Map<String, Value> = serde_json::from_str(text).map_err(|_| wrong())?;
        let fits = headers.len() <= MOST_HEADERS && headers.values().all(Value::is_string);
        if fits { Ok(headers) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(headers: &[(&'static str, &str)]) -> Result<(Option<Dialect>, Params), Problem> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let mut params = Params::new();
        note(&headers, &mut params, None).map(|dialect| (dialect, params))
    }

    #[test]
    fn both_dialects_say_whom_to_tell() {
        assert_eq!(noted(&[]).unwrap().0, None);
        let (dialect, params) = noted(&[
            ("gotenberg-webhook-url", "https://x.example/done"),
            ("gotenberg-webhook-error-url", "https://x.example/failed"),
            ("gotenberg-webhook-method", "PUT"),
            ("gotenberg-webhook-extra-http-headers", r#"{"X-Key": "k"}"#),
        ])
        .unwrap();
        assert_eq!(dialect, Some(Dialect::Gotenberg));
        assert_eq!(
            params[WEBHOOK_PARAM],
            json!({
                "url": "https://x.example/done", "method": "PUT", "headers": { "X-Key": "k" },
                "error_url": "https://x.example/failed", "error_method": "POST",
            })
        );
        assert_eq!(noted(&[("caudal-webhook-url", "http://x/")]).unwrap().0, Some(Dialect::Own));
    }

    #[test]
    fn what_is_no_webhook_is_said() {
        for (name, value) in [
            ("caudal-webhook-url", "file:///etc/passwd"),
            ("caudal-webhook-url", "x"),
            ("caudal-webhook-error-url", "gopher://x/"),
            ("caudal-webhook-method", "GET"),
            ("caudal-webhook-extra-http-headers", "[]"),
        ] {
            let mut headers = vec![(name, value)];
            if name != "caudal-webhook-url" {
                headers.push(("caudal-webhook-url", "http://x/"));
            }
            let problem = noted(&headers).unwrap_err();
            assert!(problem.to_string().contains(name), "{problem}");
        }
    }
}
