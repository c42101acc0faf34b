//! How the types that JSON carries as text describe themselves in an OpenAPI document.

/// Describes a type as a string with a description, an optional format and an example.
macro_rules! text_schema {
    ($type:ident, $description:expr, $format:expr, $example:expr) => {
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let object = utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .format(Option::map($format, utoipa::openapi::SchemaFormat::KnownFormat))
                    .description(Some($description))
                    .examples([$example]);
                utoipa::openapi::Schema::Object(object.build()).into()
            }
        }

        impl utoipa::ToSchema for $type {}
    };
}

pub(crate) use text_schema;
