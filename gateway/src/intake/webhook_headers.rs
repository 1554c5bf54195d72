//! Webhook headers of a request: the URL to call with its result, in our own headers or in Gotenberg's.
//!
//! A URL that the config does not allow is refused here if this process calls webhooks. The final check is the
//! caller's, at the time of the call, because a host name can resolve to another address by then.

use axum::http::{HeaderMap, Uri};
use pipeline::webhook::{WEBHOOK_PARAM, Webhook, WebhookCaller};
use pipeline::{Params, parse_message};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::problem::Problem;

/// Longest URL, in bytes.
const MAX_URL_BYTES: usize = 2 << 10;

/// Headers that a webhook call may carry, at most.
const MAX_HEADERS: usize = 16;

/// Whose headers a request uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `Caudal-Webhook-…`
    Own,
    /// `Gotenberg-Webhook-…`: its clients expect 204.
    Gotenberg,
}

/// Adds the webhook of a request to its parameters; `None` if it has none.
///
/// # Errors
/// 400 naming the header.
pub fn read(
    headers: &HeaderMap,
    params: &mut Params,
    caller: Option<&dyn WebhookCaller>,
) -> Result<Option<Dialect>, Problem> {
    for (dialect, prefix) in [(Dialect::Own, "caudal"), (Dialect::Gotenberg, "gotenberg")] {
        let given = WebhookHeaders { headers, prefix };
        if let Some(webhook) = given.webhook()? {
            let parsed = Webhook::deserialize(&webhook).map_err(|why| given.wrong("url", &parse_message(&why)))?;
            if let Some(caller) = caller {
                parsed.check(caller).map_err(Problem::from)?;
            }
            params.insert(WEBHOOK_PARAM.into(), webhook);
            return Ok(Some(dialect));
        }
    }
    Ok(None)
}

/// The webhook headers of one dialect.
struct WebhookHeaders<'h> {
    headers: &'h HeaderMap,
    prefix: &'static str,
}

impl WebhookHeaders<'_> {
    fn webhook(&self) -> Result<Option<Value>, Problem> {
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
        if text.len() > MAX_URL_BYTES {
            return Err(self.wrong(what, &format!("has {} bytes, at most {MAX_URL_BYTES} are allowed", text.len())));
        }
        let uri: Option<Uri> = text.parse().ok();
        let is_http = uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
        if is_http { Ok(Some(text)) } else { Err(self.wrong(what, "is not an http or https URL")) }
    }

    fn method(&self, what: &str) -> Result<&str, Problem> {
        match self.text(what)? {
            None => Ok("POST"),
            Some(method @ ("POST" | "PUT" | "PATCH")) => Ok(method),
            Some(_) => Err(self.wrong(what, "takes POST, PUT or PATCH")),
        }
    }

    /// Headers for the webhook call, as a JSON object of texts.
    fn extra(&self) -> Result<Map<String, Value>, Problem> {
        const WHAT: &str = "extra-http-headers";
        let Some(text) = self.text(WHAT)? else { return Ok(Map::new()) };
        let wrong = || self.wrong(WHAT, &format!("takes a JSON object of at most {MAX_HEADERS} texts"));
        let headers: Map<String, Value> = serde_json::from_str(text).map_err(|_| wrong())?;
        let fits = headers.len() <= MAX_HEADERS && headers.values().all(Value::is_string);
        if fits { Ok(headers) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook(headers: &[(&'static str, &str)]) -> Result<(Option<Dialect>, Params), Problem> {
        let headers = headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        let mut params = Params::new();
        read(&headers, &mut params, None).map(|dialect| (dialect, params))
    }

    #[test]
    fn a_request_without_the_headers_has_no_webhook() {
        assert_eq!(webhook(&[]).unwrap().0, None);
    }

    #[test]
    fn our_own_headers_are_read() {
        assert_eq!(webhook(&[("caudal-webhook-url", "http://x/")]).unwrap().0, Some(Dialect::Own));
    }

    #[test]
    fn gotenbergs_headers_are_read() {
        let (dialect, params) = webhook(&[
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
    }

    #[test]
    fn a_malformed_webhook_is_refused_by_header() {
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
            let problem = webhook(&headers).unwrap_err();
            assert!(problem.to_string().contains(name), "{problem}");
        }
    }
}
