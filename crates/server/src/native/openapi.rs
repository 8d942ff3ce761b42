//! The API's own description, OpenAPI 3.1, made of the route table and the wire types.
//!
//! A copy is committed as `docs/openapi.json`; a test compares the two, and rewrites the copy when `CLAVIGER_UPDATE=1`.

use super::routes::{BASE, Needs, Param, ROUTES, Route, method_name};
use claviger_domain::Capability;
use claviger_wire::native::schemas;
use serde_json::{Map, Value, json};

/// The OpenAPI document of the native API.
#[must_use]
pub fn openapi() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(format!("{BASE}{}", route.pattern)).or_insert_with(|| json!({}));
        path[method_name(route.method).to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Claviger's native API",
            "version": "1",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "Secrets and keys, their versions, and who may do what with them. Ids of keys may contain slashes; \
                sub-resources stand behind `/-/`. Ids of versions and revisions are strings, since they pass 2^53. Every answer \
                has a `Claviger-Request-Id`, which the audit log has too. Unknown members and parameters are refused.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "certificate": { "type": "mutualTLS" },
            },
        },
        "security": [{ "token": [] }, { "certificate": [] }],
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "description": needs(route.needs),
        "parameters": parameters(route),
        "responses": {
            route.status.to_string(): { "description": "Done.", "content": content(route) },
            "default": {
                "description": "Refused, with the reason.",
                "content": { "application/problem+json": { "schema": reference("Problem") } },
            },
        },
    });
    if let Some(name) = route.request {
        operation["requestBody"] = json!({ "required": true, "content": { "application/json": { "schema": reference(name) } } });
    }
    if route.needs == Needs::Nothing {
        operation["security"] = json!([]);
    }
    operation
}

/// The variant's name with a small first letter.
fn operation_id(route: &Route) -> String {
    let name = format!("{:?}", route.operation);
    name[..1].to_ascii_lowercase() + &name[1..]
}

fn content(route: &Route) -> Value {
    match route.answer {
        "WatchEvent" => json!({ "text/event-stream": { "schema": { "type": "string" }, "x-event-data": reference("WatchEvent") } }),
        "object" => json!({ "application/json": { "schema": { "type": "object" } } }),
        name => json!({ "application/json": { "schema": reference(name) } }),
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn parameters(route: &Route) -> Value {
    let in_path = ["id", "vid"].into_iter().filter(|name| route.pattern.contains(&format!("{{{name}}}")));
    let in_path = in_path.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let in_query = route.query.iter().map(query_parameter);
    let if_match = route.conditional.then(|| {
        let description = "Do it only while the object's ETag is this; else 412.";
        json!({ "name": "If-Match", "in": "header", "description": description, "schema": { "type": "string" } })
    });
    let min_revision = (route.needs != Needs::Nothing).then(|| {
        let description = "Answer only when this revision has been seen; 503 when that takes more than two seconds.";
        json!({ "name": "Claviger-Min-Revision", "in": "header", "description": description, "schema": { "type": "string" } })
    });
    in_path.chain(in_query).chain(if_match).chain(min_revision).collect()
}

fn query_parameter(param: &Param) -> Value {
    let schema = match param.repeated {
        true => json!({ "type": "array", "items": { "type": "string" } }),
        false => json!({ "type": "string" }),
    };
    json!({ "name": param.name, "in": "query", "required": param.required, "description": param.summary, "schema": schema })
}

fn needs(needs: Needs) -> String {
    match needs {
        Needs::Nothing => "Needs no credential.".to_owned(),
        Needs::Identity => "Needs any proven identity; the answer has what it may see.".to_owned(),
        Needs::AnyRight => "Needs any right on the key.".to_owned(),
        Needs::OnKey(right) => format!("Needs `{}` on the key.", right.name()),
        Needs::Verification => format!("Needs `{}` or `{}` on the key.", Capability::Verify.name(), Capability::Sign.name()),
        Needs::Creation => format!("Needs `{}` on a prefix of the id, or a prefix where any user may create.", Capability::Create.name()),
        Needs::PrefixAdmin => "Needs `admin` on the prefix or a shorter one.".to_owned(),
        Needs::RootAdmin => "Needs `admin` on the empty prefix.".to_owned(),
        Needs::Concerned => "Needs to have asked for it, to be an approver of it, or `admin` on its target.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_committed_description_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
        let text = serde_json::to_string_pretty(&openapi()).unwrap() + "\n";
        if std::env::var_os("CLAVIGER_UPDATE").is_some_and(|v| v == "1") {
            std::fs::write(path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            committed == text,
            "docs/openapi.json is not what the code says; run this test with CLAVIGER_UPDATE=1 and look at the difference"
        );
    }

    #[test]
    fn every_schema_that_is_named_is_there() {
        let document = openapi();
        let text = document.to_string();
        let named = text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap());
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let missing: Vec<_> = named.filter(|name| !schemas.contains_key(*name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert_eq!(document["paths"].as_object().unwrap().values().map(|p| p.as_object().unwrap().len()).sum::<usize>(), ROUTES.len());
    }
}
