//! A service's `OpenAPI` document beside what it answers, each way: for tests.
#![allow(
    missing_docs,
    clippy::missing_panics_doc,
    reason = "read by tests, which panic when something is wrong"
)]

use std::collections::BTreeSet;

use axum::{Router, body::Body, http::Request};
use serde_json::Value;

use crate::testing::{self, Answer};

/// An answer, as a document has it: method, path's template, status, and the type of the problem if
/// it is one.
type Seen = (String, String, u16, Option<String>);

pub struct Contract {
    document: Value,
    seen: BTreeSet<Seen>,
}

impl Contract {
    pub async fn of(app: &Router) -> Self {
        let document = testing::get(app, crate::openapi::PATH).await;
        assert_eq!(document.status, 200);
        let mut contract = Self { document: document.json(), seen: BTreeSet::new() };
        assert!(contract.document["openapi"].as_str().unwrap().starts_with("3.1."));
        contract.check("GET", crate::openapi::PATH, &document);
        contract
    }

    /// Asks, and asserts that the document has this very answer.
    pub async fn call(&mut self, app: &Router, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let answer = testing::call(app, request).await;
        self.check(&method, &path, &answer);
        answer
    }

    pub async fn get(&mut self, app: &Router, path: &str) -> Answer {
        self.call(app, Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// Asserts that the document has this answer to a request for `path`.
    #[track_caller]
    pub fn check(&mut self, method: &str, path: &str, answer: &Answer) {
        let template = self.template(path);
        let operation = &self.document["paths"][&template][method.to_lowercase()];
        let response = &operation["responses"][answer.status.as_str()];
        assert!(response.is_object(), "{method} {template} isn't said to answer so: {answer:?}");
        let media = answer.header("content-type").to_owned();
        let schema = &response["content"][&media]["schema"];
        assert!(schema.is_object(), "{method} {template} isn't said to answer {media}: {answer:?}");
        let json = answer.json();
        let mut wrong = Vec::new();
        self.validate(schema, &json, "$", &mut wrong);
        assert!(wrong.is_empty(), "{method} {template} {}: {wrong:?} in {json}", answer.status);
        for name in answer.headers.keys().map(|name| name.as_str().to_owned()) {
            let usual = ["content-type", "content-length", "x-request-id", "traceparent", "tracestate"];
            let said = response["headers"].as_object().into_iter().flatten();
            let said = said.map(|(said, _)| said.to_lowercase()).any(|said| said == name);
            assert!(
                said || usual.contains(&name.as_str()),
                "{method} {template}: a header {name} isn't said"
            );
        }
        let problem = (media == testing::PROBLEM_JSON).then(|| json["type"].as_str().unwrap().to_owned());
        self.seen.insert((method.to_owned(), template, answer.status.as_u16(), problem));
    }

    /// Asserts that each answer in the document was seen, but for these: `GET /users 500`, or `500`
    /// of any operation.
    #[track_caller]
    pub fn assert_complete(&self, except: &[&str]) {
        let excused = |(method, path, status, _): &Seen| {
            except.contains(&status.to_string().as_str())
                || except.contains(&format!("{method} {path} {status}").as_str())
        };
        let missing: Vec<_> =
            self.said().into_iter().filter(|said| !self.seen.contains(said) && !excused(said)).collect();
        assert!(missing.is_empty(), "the document says what was never answered: {missing:#?}");
    }

    /// Every problem type there is in the document.
    pub fn problem_types(&self) -> BTreeSet<String> {
        self.said().into_iter().filter_map(|(_, _, _, kind)| kind).collect()
    }

    /// Asserts that each path answers the document's methods and no other, as a 405 itself says in
    /// `Allow`.
    pub async fn assert_methods(&self, app: &Router) {
        for (template, operations) in self.document["paths"].as_object().unwrap() {
            let path = template.replace("{id}", "01980000-0000-7000-8000-000000000000");
            let answer =
                testing::call(app, Request::builder().method("PURGE").uri(path).body(Body::empty()).unwrap())
                    .await;
            answer.assert_problem(405);
            let allowed = answer.header("allow").split(',').map(str::to_lowercase);
            let allowed: BTreeSet<_> = allowed.filter(|method| method != "head").collect();
            let said: BTreeSet<_> = operations.as_object().unwrap().keys().cloned().collect();
            assert_eq!(allowed, said, "{template}");
        }
    }

    /// Asserts that each path which these sources give a router is in the document.
    #[track_caller]
    pub fn assert_routes(&self, sources: &[&str]) {
        let paths = self.document["paths"].as_object().unwrap();
        let mut routes = BTreeSet::new();
        for source in sources {
            for (_, after) in source.match_indices(".route(\"").map(|(at, it)| (at, &source[at + it.len()..]))
            {
                routes.insert(after.split('"').next().unwrap().to_owned());
            }
        }
        assert!(!routes.is_empty(), "no route was found");
        let said: BTreeSet<_> = paths.keys().cloned().collect();
        assert_eq!(routes, said);
    }

    fn said(&self) -> Vec<Seen> {
        let mut said = Vec::new();
        for (path, operations) in self.document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                for (status, response) in operation["responses"].as_object().unwrap() {
                    let of = |kind| (method.to_uppercase(), path.clone(), status.parse().unwrap(), kind);
                    let schema = &response["content"][testing::PROBLEM_JSON]["schema"];
                    let kinds = schema["allOf"][1]["properties"]["type"]["enum"].as_array();
                    match kinds {
                        Some(kinds) => {
                            said.extend(kinds.iter().map(|kind| of(kind.as_str().map(str::to_owned))));
                        }
                        None => said.push(of(None)),
                    }
                }
            }
        }
        said
    }

    #[track_caller]
    fn template(&self, path: &str) -> String {
        let fits = |template: &str| {
            let (mut asked, mut said) = (path.split('/'), template.split('/'));
            loop {
                match (asked.next(), said.next()) {
                    (None, None) => return true,
                    (Some(asked), Some(said)) if said == asked || said.starts_with('{') => {}
                    _ => return false,
                }
            }
        };
        let mut templates = self.document["paths"].as_object().unwrap().keys();
        templates
            .find(|template| fits(template))
            .unwrap_or_else(|| panic!("{path} is in no document"))
            .clone()
    }

    /// As much of JSON Schema as the documents have.
    fn validate(&self, schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
        let mut say = |what: String| wrong.push(format!("{at}: {what}"));
        for (keyword, rule) in schema.as_object().unwrap() {
            match keyword.as_str() {
                "type" => {
                    let kinds = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                    if !kinds.iter().any(|kind| is_a(value, kind.as_str().unwrap())) {
                        say(format!("{value} is no {rule}"));
                    }
                }
                "enum" if !rule.as_array().unwrap().contains(value) => {
                    say(format!("{value} is none of {rule}"));
                }
                "const" if rule != value => say(format!("{value} isn't {rule}")),
                "minimum" if value.as_i64() < rule.as_i64() => say(format!("{value} is below {rule}")),
                "maximum" if value.as_i64() > rule.as_i64() => say(format!("{value} is above {rule}")),
                "additionalProperties" if *rule == Value::Bool(false) => {
                    for name in value.as_object().into_iter().flat_map(|it| it.keys()) {
                        if schema["properties"].get(name).is_none() {
                            say(format!("{name} isn't said"));
                        }
                    }
                }
                "required" => {
                    for name in rule.as_array().unwrap() {
                        if value.get(name.as_str().unwrap()).is_none() {
                            say(format!("there is no {name}"));
                        }
                    }
                }
                _ => {}
            }
        }
        if let Some(name) = schema["$ref"].as_str() {
            let schema = self.document.pointer(name.trim_start_matches('#'));
            self.validate(schema.unwrap_or_else(|| panic!("there is no {name}")), value, at, wrong);
        }
        for schema in schema["allOf"].as_array().into_iter().flatten() {
            self.validate(schema, value, at, wrong);
        }
        for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
            if let Some(value) = value.get(name) {
                self.validate(schema, value, &format!("{at}.{name}"), wrong);
            }
        }
        if let (Some(schema), Some(values)) = (schema.get("items"), value.as_array()) {
            for (index, value) in values.iter().enumerate() {
                self.validate(schema, value, &format!("{at}[{index}]"), wrong);
            }
        }
    }
}

/// The problem types that stand in these sources, and the one that says nothing.
pub fn problem_types_in(sources: &[&str]) -> BTreeSet<String> {
    let mut types = BTreeSet::from(["about:blank".to_owned()]);
    for source in sources {
        for (at, _) in source.match_indices("\"urn:problem:") {
            types.insert(source[at + 1..].split('"').next().unwrap().to_owned());
        }
    }
    types
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "null" => value.is_null(),
        other => panic!("{other} is a type that isn't known here"),
    }
}
