//! `GET /v1/models` and `/v1/models/{id}`: the one model there is, as OpenAI lists models.

use http::Request;
use serde_json::{Value, json};

use super::error::Refusal;
use super::{Context, Reply, json};
use crate::service::Service;

pub(super) fn list<'s>(_: &Request<Vec<u8>>, context: &Context<'_, 's>) -> Result<Reply<'s>, Refusal> {
    Ok(json(&json!({"object": "list", "data": [model(context.service()?)]})))
}

pub(super) fn retrieve<'s>(
    request: &Request<Vec<u8>>,
    context: &Context<'_, 's>,
) -> Result<Reply<'s>, Refusal> {
    let id = request.uri().path().trim_start_matches("/v1/models/");
    let id = percent_encoding::percent_decode_str(id).decode_utf8_lossy();
    let service = context.service()?;
    service.check_model(Some(&id)).map_err(|error| context.report.refusal(error))?;
    Ok(json(&model(service)))
}

fn model(service: &Service) -> Value {
    let about = service.about();
    json!({"id": about.id, "object": "model", "created": about.created, "owned_by": "wafer"})
}
