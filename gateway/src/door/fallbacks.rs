//! The answers to paths and methods that nothing serves.

use axum::extract::Request;
use axum::http::StatusCode;

use crate::problem::Problem;

/// 404 for a path that nothing serves.
pub async fn not_found(request: Request) -> Problem {
    let shown: String = request.uri().path().chars().take(200).collect();
    Problem::new(StatusCode::NOT_FOUND, "no_route", format!("nothing is served at {shown}"))
}

/// 405 for a method that the path does not take; the router adds `Allow`.
pub async fn method_not_allowed(request: Request) -> Problem {
    let shown: String = request.uri().path().chars().take(200).collect();
    let detail = format!("{shown} does not take {}; the header Allow names the methods it takes", request.method());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}
