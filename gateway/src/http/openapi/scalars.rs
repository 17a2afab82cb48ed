//! How exact decimals, spans, shares and times are described.

use serde_json::json;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::decimal::{Decimal, Percent, Seconds, Time};

fn number(description: &str, example: serde_json::Value) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).description(Some(description)).examples([example])
}

impl PartialSchema for Decimal {
    fn schema() -> RefOr<Schema> {
        number("USDC, exact, with at most six decimals. Read it as a decimal, not as a floating-point number.", json!(0.25)).into()
    }
}

impl ToSchema for Decimal {
    fn name() -> std::borrow::Cow<'static, str> {
        "Usdc".into()
    }
}

impl PartialSchema for Seconds {
    fn schema() -> RefOr<Schema> {
        number("Seconds, with exact milliseconds as decimals.", json!(1.25)).into()
    }
}

impl ToSchema for Seconds {}

impl PartialSchema for Percent {
    fn schema() -> RefOr<Schema> {
        number("Percent, with at most two decimals.", json!(99.5)).maximum(Some(100)).into()
    }
}

impl ToSchema for Percent {}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("RFC 3339, UTC."))
            .examples([json!("2026-02-08T05:00:00Z")])
            .into()
    }
}

impl ToSchema for Time {}

/// Bytes.
pub(super) fn bytes() -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary))).into()
}
