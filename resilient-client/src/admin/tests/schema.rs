//! As much of JSON Schema as ours uses. What it doesn't know is a problem, too.

use serde_json::Value;

/// Where a value isn't as its schema says.
pub(super) fn problems(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, value, "", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    for (keyword, rule) in schema.as_object().expect("a schema is an object") {
        let fits = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => true,
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                check(root, &root["$defs"][name], value, at, found);
                true
            }
            "type" => types(rule).iter().any(|name| is(value, name)),
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
            "minItems" => value.as_array().is_none_or(|all| all.len() as u64 >= rule.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|all| all.len() as u64 <= rule.as_u64().unwrap()),
            "required" => !value.is_object() || names(rule).all(|name| value.get(name).is_some()),
            "anyOf" => rule.as_array().unwrap().iter().any(|one| {
                let mut of_one = Vec::new();
                check(root, one, value, at, &mut of_one);
                of_one.is_empty()
            }),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{at}/{index}"), found);
                }
                true
            }
            "properties" => {
                for (name, of_property) in rule.as_object().unwrap() {
                    if let Some(property) = value.get(name) {
                        check(root, of_property, property, &format!("{at}/{name}"), found);
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = schema.get("properties").and_then(Value::as_object);
                let more = value.as_object().into_iter().flatten();
                let more = more.filter(|(name, _)| known.is_none_or(|known| !known.contains_key(*name)));
                for (name, property) in more {
                    match rule {
                        Value::Bool(allowed) if !allowed => {
                            found.push(format!("{at}/{name} isn't in the schema"));
                        }
                        Value::Object(_) => check(root, rule, property, &format!("{at}/{name}"), found),
                        _ => {}
                    }
                }
                true
            }
            _ => false,
        };
        if !fits {
            found.push(format!("{at}: {value} isn't {keyword} {rule}"));
        }
    }
}

fn names(rule: &Value) -> impl Iterator<Item = &str> {
    rule.as_array().unwrap().iter().map(|name| name.as_str().unwrap())
}

fn types(rule: &Value) -> Vec<&str> {
    rule.as_str().map_or_else(|| names(rule).collect(), |name| vec![name])
}

fn is(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}
