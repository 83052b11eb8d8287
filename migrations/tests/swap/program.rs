// A program written for reqwest, included twice: once with reqwest's types in scope and once with
// this library's. What it does and prints is all that it knows.

/// What came of each thing it did, by name.
type Told = Vec<(&'static str, String)>;

#[derive(serde::Serialize, serde::Deserialize)]
struct Order {
    user: u64,
    item: String,
}

/// What an error says it is.
fn said(error: &Error) -> String {
    let all = [
        ("request", error.is_request()),
        ("connect", error.is_connect()),
        ("timeout", error.is_timeout()),
        ("decode", error.is_decode()),
        ("status", error.is_status()),
        ("builder", error.is_builder()),
        ("redirect", error.is_redirect()),
        ("upgrade", error.is_upgrade()),
    ];
    let names: Vec<_> = all.into_iter().filter(|(_, is)| *is).map(|(name, _)| name).collect();
    format!("error: {} {:?}", names.join(" "), error.status().map(|status| status.as_u16()))
}

async fn text(sent: Result<Response, Error>) -> String {
    match sent {
        Ok(response) => {
            let status = response.status().as_u16();
            match response.text().await {
                Ok(text) => format!("{status} {text}"),
                Err(error) => format!("{status} {}", said(&error)),
            }
        }
        Err(error) => said(&error),
    }
}

async fn verbs(client: &Client, base: &str, told: &mut Told) -> Result<(), Error> {
    let order = Order { user: 7, item: "tea".to_owned() };
    told.push(("get", text(client.get(format!("{base}/echo")).send().await).await));
    told.push((
        "query",
        text(client.get(format!("{base}/echo")).query(&[("q", "a b"), ("n", "1")]).send().await).await,
    ));
    told.push(("post", text(client.post(format!("{base}/echo")).json(&order).send().await).await));
    told.push(("form", text(client.post(format!("{base}/echo")).form(&order).send().await).await));
    told.push(("put", text(client.put(format!("{base}/echo")).body("an order").send().await).await));
    told.push(("patch", text(client.patch(format!("{base}/echo")).body("half of one").send().await).await));
    told.push(("delete", text(client.delete(format!("{base}/echo")).send().await).await));
    let head = client.head(format!("{base}/echo")).send().await?;
    told.push(("head", format!("{} {:?}", head.status(), head.headers().get("x-server"))));
    let own = Method::from_bytes(b"REPORT").expect("a method");
    told.push(("own method", text(client.request(own, format!("{base}/echo")).send().await).await));
    let call = client.get(format!("{base}/echo")).header("x-mine", "1").bearer_auth("token");
    told.push(("bearer", text(call.send().await).await));
    let call = client.get(format!("{base}/echo")).basic_auth("me", Some("secret"));
    told.push(("basic", text(call.send().await).await));
    let found: Order = client.get(format!("{base}/order")).send().await?.error_for_status()?.json().await?;
    told.push(("json", format!("{} {}", found.user, found.item)));
    Ok(())
}

async fn answers(client: &Client, base: &str, told: &mut Told) -> Result<(), Error> {
    for (name, status) in
        [("created", 201), ("no content", 204), ("not modified", 304), ("not found", 404), ("failed", 501)]
    {
        told.push((name, text(client.get(format!("{base}/status/{status}")).send().await).await));
    }
    let refused = client.get(format!("{base}/status/403")).send().await?.error_for_status();
    told.push(("error for status", refused.err().as_ref().map_or_else(String::new, said)));
    for (name, path) in
        [("latin-1", "latin1"), ("shift_jis", "sjis"), ("utf-8", "utf8"), ("no charset", "bytes")]
    {
        told.push((name, text(client.get(format!("{base}/text/{path}")).send().await).await));
    }
    let response = client.get(format!("{base}/text/bytes")).send().await?;
    told.push(("another default", response.text_with_charset("iso-8859-1").await?));
    let response = client.get(format!("{base}/text/utf8")).send().await?;
    told.push(("length", format!("{:?} {:?}", response.content_length(), response.version())));
    told.push(("address", format!("{}", response.remote_addr().is_some())));
    let mut response = client.get(format!("{base}/pieces")).send().await?;
    let mut pieces = Vec::new();
    while let Some(piece) = response.chunk().await? {
        pieces.extend_from_slice(&piece);
    }
    told.push(("pieces", String::from_utf8_lossy(&pieces).into_owned()));
    let wrong = client.get(format!("{base}/text/utf8")).send().await?.json::<Order>().await;
    told.push(("not JSON", wrong.err().as_ref().map_or_else(String::new, said)));
    Ok(())
}

async fn redirects(client: &Client, base: &str, told: &mut Told) -> Result<(), Error> {
    for (name, status) in
        [("moved 301", 301), ("moved 302", 302), ("moved 303", 303), ("moved 307", 307), ("moved 308", 308)]
    {
        let call = client.post(format!("{base}/moved/{status}")).body("an order");
        told.push((name, text(call.send().await).await));
    }
    let response = client.get(format!("{base}/moved/302")).send().await?;
    told.push(("where", response.url().path().to_owned()));
    told.push(("in a circle", text(client.get(format!("{base}/circle")).send().await).await));
    told.push(("nowhere", text(client.get(format!("{base}/nowhere")).send().await).await));
    Ok(())
}

async fn troubles(client: &Client, base: &str, nobody: &str, told: &mut Told) -> Result<(), Error> {
    told.push(("nobody there", text(client.get(nobody).send().await).await));
    told.push(("bad address", text(client.get("http://:80/").send().await).await));
    let call = client.get(format!("{base}/echo")).header("a b", "1");
    told.push(("bad header", text(call.send().await).await));
    let call = client.get(format!("{base}/hang")).timeout(Duration::from_millis(300));
    told.push(("no answer in time", text(call.send().await).await));
    let call = client.get(format!("{base}/stall")).timeout(Duration::from_millis(300));
    told.push(("no body in time", text(call.send().await).await));
    let call = client.get(format!("{base}/slow")).timeout(Duration::from_mins(1));
    told.push(("slow, with time", text(call.send().await).await));
    told.push(("cut off", text(client.post(format!("{base}/cut")).send().await).await));
    Ok(())
}

async fn built(client: &Client, base: &str, told: &mut Told) -> Result<(), Error> {
    let request = client.put(format!("{base}/echo")).header("x-mine", "2").body("built").build()?;
    told.push(("built", format!("{} {}", request.method(), request.url().path())));
    told.push(("executed", text(client.execute(request).await).await));
    let request = client.get(format!("{base}/hang")).timeout(Duration::from_millis(300)).build()?;
    told.push(("executed, no answer in time", text(client.execute(request).await).await));
    let (one, two) = (client.clone(), client.clone());
    let urls = (format!("{base}/text/utf8"), format!("{base}/order"));
    let both = tokio::join!(one.get(urls.0).send(), two.get(urls.1).send());
    told.push(("two at once", format!("{} {}", text(both.0).await, text(both.1).await)));
    Ok(())
}

async fn forms(client: &Client, base: &str, told: &mut Told) -> Result<(), Error> {
    let invoice = || Part::bytes(b"%PDF-1.7".as_slice()).mime_str("application/pdf");
    let own = http::HeaderMap::from_iter([(http::header::CONTENT_LANGUAGE, "en".parse().expect("a value"))]);
    let form = Form::new()
        .text("title", "Invoice 7")
        .part("invoice", invoice()?.file_name("invoice 7.pdf"))
        .part("note", Part::text("caf\u{e9}").headers(own));
    told.push(("parts", text(client.post(format!("{base}/form")).multipart(form).send().await).await));
    told.push((
        "no parts",
        text(client.put(format!("{base}/form")).multipart(Form::new()).send().await).await,
    ));
    let wrong = Part::text("a").mime_str("no type").err();
    told.push(("no type", wrong.map_or_else(String::new, |error| error.is_builder().to_string())));
    let form = Form::new().text("full name", "Ada").part("file", invoice()?.file_name("the \"7th\".pdf"));
    told.push(("form names", text(client.post(format!("{base}/form")).multipart(form).send().await).await));
    Ok(())
}

/// For a client with a jar.
async fn cookies(client: &Client, base: &str, told: &mut Told) -> Result<(), Error> {
    told.push(("no cookies", text(client.get(format!("{base}/cookies")).send().await).await));
    let response = client.post(format!("{base}/login")).body("Ada").send().await?;
    let set = response.cookies().map(|it| {
        format!(
            "{}={} {:?} {:?} {} {}",
            it.name(),
            it.value(),
            it.path(),
            it.max_age(),
            it.http_only(),
            it.secure()
        )
    });
    told.push(("cookies set", set.collect::<Vec<_>>().join(", ")));
    told.push(("cookies", text(client.get(format!("{base}/cookies")).send().await).await));
    told.push(("cookies below", text(client.get(format!("{base}/below/cookies")).send().await).await));
    let call = client.get(format!("{base}/cookies")).header("cookie", "mine=1");
    told.push(("cookies of one's own", text(call.send().await).await));
    // It is redirected, and answered with other cookies on the way.
    told.push(("cookies on the way", text(client.get(format!("{base}/renew")).send().await).await));
    told.push(("cookies after it", text(client.get(format!("{base}/cookies")).send().await).await));
    Ok(())
}

/// What the page of differences is about.
async fn differences(client: &Client, base: &str, other: &str, told: &mut Told) -> Result<(), Error> {
    told.push(("headers", text(client.get(format!("{base}/headers")).send().await).await));
    told.push(("without content", text(client.post(format!("{base}/headers")).send().await).await));
    let nobody = client.get("http://nobody.invalid/").send().await.err();
    told.push(("url", format!("{:?}", nobody.as_ref().and_then(Error::url).map(|url| url.path().to_owned()))));
    let form = Form::new().text("title", "Invoice 7");
    told.push(("form again", text(client.post(format!("{base}/moved/308")).multipart(form).send().await).await));
    let now = client.get(format!("{base}/echo")).timeout(Duration::ZERO);
    told.push(("no time", text(now.send().await).await));
    told.push(("flaky", text(client.get(format!("{base}/flaky")).send().await).await));
    told.push(("elsewhere", text(client.get(format!("{base}/to?{other}/elsewhere")).send().await).await));
    told.push(("slow", text(client.post(format!("{base}/slow")).send().await).await));
    let large = client.get(format!("{base}/large")).send().await?.bytes().await;
    told.push(("large", large.map_or_else(|error| said(&error), |bytes| bytes.len().to_string())));
    let mut last = String::new();
    for _ in 0..10 {
        last = text(client.post(format!("{other}/status/500")).send().await).await;
    }
    told.push(("broken", last));
    Ok(())
}

async fn run(client: &Client, base: &str, other: &str, nobody: &str) -> Result<Told, Error> {
    let mut told = Told::new();
    verbs(client, base, &mut told).await?;
    forms(client, base, &mut told).await?;
    cookies(client, base, &mut told).await?;
    answers(client, base, &mut told).await?;
    redirects(client, base, &mut told).await?;
    built(client, base, &mut told).await?;
    troubles(client, base, nobody, &mut told).await?;
    differences(client, base, other, &mut told).await?;
    Ok(told)
}
