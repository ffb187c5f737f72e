//! `GET /health`: whether a token can be generated, tried out. `GET /livez`: whether anybody answers.

use http::{Request, StatusCode};
use serde_json::json;

use super::error::Refusal;
use super::{Context, Reply, json, response};

/// 200 if the model is loaded and a forward pass succeeds, else 503 with the reason.
pub(super) fn health<'s>(_: &Request<Vec<u8>>, context: &Context<'_, 's>) -> Result<Reply<'s>, Refusal> {
    let healthy = (context.service)().and_then(|service| service.probe().map(|()| service));
    Ok(match healthy {
        Ok(service) => json(&json!({
            "status": "Healthy",
            "model": service.about().id,
            "architecture": service.about().architecture,
            "context_length": service.context_length(),
            "vocabulary_size": service.vocabulary_size(),
            "version": env!("CARGO_PKG_VERSION"),
        })),
        Err(error) => {
            context.report.log(&format!("unhealthy: {error}"));
            let body = json!({"status": "Unhealthy", "reason": error.to_string()});
            Reply::Full(response(StatusCode::SERVICE_UNAVAILABLE, &body))
        }
    })
}

pub(super) fn livez<'s>(_: &Request<Vec<u8>>, _: &Context<'_, 's>) -> Result<Reply<'s>, Refusal> {
    Ok(json(&json!({"status": "Alive"})))
}
