//! The OpenAPI document held against real answers.
//!
//! Knows the part of JSON Schema that the document uses, and refuses what it does not know, so that nothing in the
//! document goes unchecked.

use serde_json::{Map, Value};

/// The document, and what of it was asked.
pub(crate) struct Document(Value);

impl Document {
    pub(crate) fn new(document: Value) -> Document {
        assert_eq!(document["openapi"], "3.1.0");
        Document(document)
    }

    /// All operations: name, method, path.
    pub(crate) fn operations(&self) -> Vec<(String, String, String)> {
        let mut all = Vec::new();
        for (path, item) in self.0["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap().iter().filter(|(method, _)| *method != "parameters") {
                let name = operation["operationId"].as_str().unwrap().to_owned();
                all.push((name, method.to_uppercase(), path.clone()));
            }
        }
        all
    }

    /// Checks an answer of an operation against the schema for its status.
    pub(crate) fn check(&self, operation: &str, status: u16, answer: &Value) {
        let (_, method, path) = self.operations().into_iter().find(|(name, ..)| name == operation).unwrap();
        let responses = &self.0["paths"][&path][method.to_lowercase()]["responses"];
        let response = match responses.get(status.to_string()) {
            Some(response) => response,
            None if status >= 400 => &responses["default"],
            None => panic!("{operation}: {status} is not in the document"),
        };
        let schema = &self.follow(response)["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{operation}: no schema for {status}");
        if let Err(why) = self.matches(schema, answer) {
            panic!("{operation} {status}: {why}\n{answer:#}");
        }
    }

    fn follow<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref") {
            None => value,
            Some(link) => {
                let pointer = link.as_str().unwrap().strip_prefix('#').unwrap();
                self.0.pointer(pointer).unwrap_or_else(|| panic!("{pointer} leads nowhere"))
            }
        }
    }

    fn matches(&self, schema: &Value, value: &Value) -> Result<(), String> {
        for (keyword, rule) in schema.as_object().unwrap() {
            match keyword.as_str() {
                "description" | "format" | "default" | "examples" => {}
                "$ref" => self.matches(self.follow(schema), value)?,
                "type" => {
                    let types: Vec<_> = match rule {
                        Value::Array(types) => types.iter().collect(),
                        one => vec![one],
                    };
                    let is = |name: &&Value| is_of_type(name.as_str().unwrap(), value);
                    types.iter().any(is).then_some(()).ok_or(format!("{value} is not {rule}"))?;
                }
                "enum" => {
                    rule.as_array()
                        .unwrap()
                        .contains(value)
                        .then_some(())
                        .ok_or(format!("{value} is not of {rule}"))?;
                }
                "minimum" => {
                    if value.as_f64() < rule.as_f64() {
                        return Err(format!("{value} is below {rule}"));
                    }
                }
                "maximum" => {
                    if value.as_f64() > rule.as_f64() {
                        return Err(format!("{value} is above {rule}"));
                    }
                }
                "anyOf" => {
                    let any = rule.as_array().unwrap().iter().any(|schema| self.matches(schema, value).is_ok());
                    any.then_some(()).ok_or(format!("{value} is none of {rule}"))?;
                }
                "required" => {
                    for name in rule.as_array().unwrap().iter().filter(|_| value.is_object()) {
                        value.get(name.as_str().unwrap()).ok_or(format!("{name} is missing"))?;
                    }
                }
                "properties" => {
                    for (name, value) in members(value) {
                        if let Some(schema) = rule.get(name) {
                            self.matches(schema, value).map_err(|why| format!("{name}: {why}"))?;
                        }
                    }
                }
                "additionalProperties" => {
                    for (name, value) in members(value) {
                        match (schema["properties"].get(name), rule) {
                            (Some(_), _) => {}
                            (None, Value::Bool(false)) => return Err(format!("{name} is not in the document")),
                            (None, schema) => {
                                self.matches(schema, value).map_err(|why| format!("{name}: {why}"))?;
                            }
                        }
                    }
                }
                "items" => {
                    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.matches(rule, item).map_err(|why| format!("[{i}]: {why}"))?;
                    }
                }
                unknown => panic!("the tests do not know {unknown}"),
            }
        }
        Ok(())
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().map(Map::iter).into_iter().flatten()
}

fn is_of_type(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        unknown => panic!("no such type: {unknown}"),
    }
}

#[test]
fn what_does_not_match_is_seen() {
    let document = Document(serde_json::json!({ "components": { "schemas": { "A": {
        "type": "object", "required": ["a"], "additionalProperties": false,
        "properties": { "a": { "type": ["integer", "null"] }, "b": { "enum": ["x"] }, "c": {
            "type": "array", "items": { "anyOf": [{ "type": "null" }, { "type": "string" }] } } }
    }}}}));
    let schema = serde_json::json!({ "$ref": "#/components/schemas/A" });
    for (text, matches) in [
        (r#"{"a": 1}"#, true),
        (r#"{"a": null, "b": "x", "c": [null, "y"]}"#, true),
        ("{}", false),
        (r#"{"a": "1"}"#, false),
        (r#"{"a": 1, "b": "y"}"#, false),
        (r#"{"a": 1, "c": [1]}"#, false),
        (r#"{"a": 1, "d": 1}"#, false),
        ("[]", false),
    ] {
        let value = serde_json::from_str(text).unwrap();
        assert_eq!(document.matches(&schema, &value).is_ok(), matches, "{text}");
    }
}
