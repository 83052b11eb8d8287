use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_are_made_shown_changed_and_removed() {
    let api = Api::start().await;
    let listen = api.proxy_at("users", "127.0.0.77:0").await;
    let (status, users) = api.ask("GET", "/proxies/users", None).await;
    assert_eq!((status, &users["enabled"], &users["toxics"]), (200, &json!(true), &json!([])));
    assert_eq!(users["listen"], json!(listen.to_string()));
    let (_, all) = api.ask("GET", "/proxies", None).await;
    assert_eq!(all, json!({ "users": users }));

    round_trip(&mut TcpStream::connect(listen).await.unwrap(), b"hello").await.unwrap();
    let mut open = TcpStream::connect(listen).await.unwrap();
    round_trip(&mut open, b"hello").await.unwrap();
    let (status, down) = api.ask("POST", "/proxies/users", Some(json!({ "enabled": false }))).await;
    assert_eq!((status, &down["enabled"]), (200, &json!(false)));
    round_trip(&mut open, b"hello").await.unwrap_err();
    TcpStream::connect(listen).await.unwrap_err();

    let (_, up) = api.ask("PATCH", "/proxies/users", Some(json!({ "enabled": true }))).await;
    assert_eq!((&up["enabled"], &up["listen"]), (&json!(true), &json!(listen.to_string())));
    round_trip(&mut TcpStream::connect(listen).await.unwrap(), b"hello").await.unwrap();

    assert_eq!(api.ask("DELETE", "/proxies/users", None).await.0, 204);
    assert_eq!(api.ask("GET", "/proxies/users", None).await.0, 404);
    TcpStream::connect(listen).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_say_in_toxiproxys_form_what_is_wrong() {
    let api = Api::start().await;
    api.proxy("users").await;
    api.add("users", json!({ "name": "slow", "type": "latency" })).await;
    for (method, path, body, status, says) in [
        ("POST", "/proxies", json!({ "name": "users", "upstream": "a:1" }), 409, "proxy already exists"),
        ("POST", "/proxies", json!({ "upstream": "a:1" }), 400, "missing required field: name"),
        ("POST", "/proxies", json!({ "name": "b" }), 400, "missing required field: upstream"),
        (
            "POST",
            "/proxies",
            json!({ "name": "b", "upstream": "a:1", "listen": "0.0.0.0:1" }),
            400,
            "listen must be a loopback address and a port (127.0.0.1:0 for any), got \"0.0.0.0:1\"",
        ),
        ("GET", "/proxies/nobody", Value::Null, 404, "proxy not found"),
        ("POST", "/proxies/nobody/toxics", json!({ "type": "noop" }), 404, "proxy not found"),
        ("POST", "/proxies/users/toxics", json!({ "type": "poison" }), 400, "invalid toxic type"),
        (
            "POST",
            "/proxies/users/toxics",
            json!({ "type": "noop", "stream": "sideways" }),
            400,
            "stream was invalid, can be either upstream or downstream",
        ),
        (
            "POST",
            "/proxies/users/toxics",
            json!({ "name": "slow", "type": "noop" }),
            409,
            "toxic already exists",
        ),
        ("GET", "/proxies/users/toxics/fast", Value::Null, 404, "toxic not found"),
        ("DELETE", "/proxies/users/toxics/fast", Value::Null, 404, "toxic not found"),
    ] {
        let body = Some(body).filter(|body| !body.is_null());
        let (got, answer) = api.ask(method, path, body).await;
        assert_eq!((got, answer), (status, json!({ "error": says, "status": status })), "{method} {path}");
    }
    let (status, answer) = api.ask("POST", "/proxies", Some(json!("not an object"))).await;
    assert_eq!(status, 400);
    assert!(answer["error"].as_str().unwrap().starts_with("bad request body: "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn populate_makes_what_is_missing_and_replaces_what_differs() {
    let api = Api::start().await;
    let (a, b) = (echo().await.to_string(), echo().await.to_string());
    let both = json!([{ "name": "a", "upstream": a }, { "name": "b", "upstream": a }]);
    let (status, first) = api.ask("POST", "/populate", Some(both)).await;
    assert_eq!((status, first["proxies"].as_array().unwrap().len()), (201, 2));
    api.add("a", json!({ "type": "latency" })).await;
    api.add("b", json!({ "type": "latency" })).await;
    let other = json!([{ "name": "a", "upstream": a }, { "name": "b", "upstream": b }]);
    let (_, second) = api.ask("POST", "/populate", Some(other)).await;
    assert_eq!(second["proxies"][0]["listen"], first["proxies"][0]["listen"]);
    assert_eq!(second["proxies"][0]["toxics"].as_array().unwrap().len(), 1, "it was the same");
    assert_eq!((&second["proxies"][1]["toxics"], &second["proxies"][1]["upstream"]), (&json!([]), &json!(b)));
    // What would take the place of one can't be had: it goes on, toxics and all.
    let taken = json!([{ "name": "a", "upstream": b, "listen": a }]);
    let (status, answer) = api.ask("POST", "/populate", Some(taken)).await;
    assert_eq!((status, &answer["proxies"]), (500, &json!([])));
    assert_eq!(api.ask("GET", "/proxies/a", None).await.1, second["proxies"][0]);
    let (status, answer) = api.ask("POST", "/populate", Some(json!([{ "name": "c" }]))).await;
    assert_eq!((status, &answer["proxies"]), (400, &json!([])));
    assert_eq!(answer["error"], "missing required field: upstream");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_enables_everything_and_takes_every_toxic_away() {
    let api = Api::start().await;
    let listen = api.proxy_at("users", "127.0.0.79:0").await;
    api.add("users", json!({ "type": "timeout" })).await;
    api.ask("POST", "/proxies/users", Some(json!({ "enabled": false }))).await;
    assert_eq!(api.ask("POST", "/reset", None).await.0, 204);
    let (_, users) = api.ask("GET", "/proxies/users", None).await;
    assert_eq!((&users["enabled"], &users["toxics"]), (&json!(true), &json!([])));
    round_trip(&mut TcpStream::connect(listen).await.unwrap(), b"hello").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_web_page_can_drive_it() {
    let api = Api::start().await;
    for (name, value) in [
        ("user-agent", "Mozilla/5.0"),
        ("origin", "https://a.test"),
        ("sec-fetch-site", "cross-site"),
        ("host", "a.test"),
    ] {
        let request = api.client.post(format!("{}/reset", api.url)).header(name, value);
        assert_eq!(request.send().await.unwrap().status(), 403, "{name}: {value}");
    }
    let port = api.url.rsplit_once(':').unwrap().1;
    for host in ["localhost".to_owned(), format!("localhost:{port}"), format!("[::1]:{port}")] {
        let request = api.client.get(format!("{}/version", api.url)).header("host", &host);
        assert_eq!(request.send().await.unwrap().status(), 200, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_binary_serves_what_its_configuration_says() {
    let upstream = echo().await;
    let config = std::env::temp_dir().join(format!("fault-proxy-{}.json", std::process::id()));
    std::fs::write(&config, json!([{ "name": "users", "upstream": upstream.to_string() }]).to_string())
        .unwrap();
    let mut binary = tokio::process::Command::new(env!("CARGO_BIN_EXE_fault-proxy"));
    binary.args(["--listen", "127.0.0.1:0", "--config"]).arg(&config);
    let mut running = binary.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut says = BufReader::new(running.stdout.take().unwrap()).lines();
    let mut line = async || tokio::time::timeout(SOON, says.next_line()).await.unwrap().unwrap().unwrap();
    let passes = line().await;
    let listen: SocketAddr = passes.split_whitespace().nth(2).unwrap().parse().unwrap();
    assert_eq!(passes, format!("users passes {listen} on to {upstream}"));
    round_trip(&mut TcpStream::connect(listen).await.unwrap(), b"hello").await.unwrap();
    let serves = line().await;
    let url = serves.rsplit(' ').next().unwrap();
    let version = reqwest::Client::builder().no_proxy().build().unwrap().get(format!("{url}/version"));
    assert_eq!(version.send().await.unwrap().status(), 200, "{serves}");
    let _ = std::fs::remove_file(config);
}
