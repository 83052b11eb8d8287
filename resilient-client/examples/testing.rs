//! Tests of one's own code: the client is real, its wire is a script, and on a clock that stands
//! still no test waits.
//!
//! ```sh
//! cargo test -p resilient-client --features testing --example testing
//! cargo run -p resilient-client --features testing --example testing
//! ```

use resilient_client::testing::{Answer, Script, get};
use resilient_client::{Client, Error};

/// The code under test: a greeting that does without the user service when it must.
struct Greeter {
    users: Client,
}

impl Greeter {
    async fn greet(&self, id: u64) -> Result<String, Error> {
        match self.users.get(format!("http://users:3000/users/{id}")).fetch_text().await {
            Ok(name) => Ok(format!("Hello, {name}!")),
            Err(error) if error.is_timeout() || error.is_rejected() => Ok("Hello!".to_owned()),
            Err(error) => Err(error),
        }
    }
}

/// One of its tests, to be watched.
#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Error> {
    let script = Script::new()
        .on(get("/users/7").fails(1).then_text("Ada"))
        .on(get("/users/8").always(Answer::hang()));
    let greeter = Greeter { users: Client::builder().script(&script).build()? };
    for id in [7, 8] {
        println!("{}", greeter.greet(id).await?);
    }
    for request in script.requests() {
        println!("  {request}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use resilient_client::ErrorKind;
    use resilient_client::testing::error;

    fn greeter(script: &Script) -> Greeter {
        Greeter { users: Client::builder().script(script).build().unwrap() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_tried_again() {
        let script = Script::new().on(get("/users/7").fails(1).then_text("Ada"));
        assert_eq!(greeter(&script).greet(7).await.unwrap(), "Hello, Ada!");
        script.assert_came(["GET /users/7", "GET /users/7"]);
        script.verify();
    }

    /// Ten seconds, which take no time.
    #[tokio::test(start_paused = true)]
    async fn a_server_that_hangs_is_done_without() {
        let script = Script::new().on(get("/users/{id}").always(Answer::hang()));
        assert_eq!(greeter(&script).greet(7).await.unwrap(), "Hello!");
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_breaker_is_done_without_and_nothing_is_sent() {
        let script = Script::new();
        let greeter = greeter(&script);
        greeter.users.breaker("http://users:3000").unwrap().force_open().unwrap();
        assert_eq!(greeter.greet(7).await.unwrap(), "Hello!");
        assert!(script.requests().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_who_does_not_exist_is_an_error() {
        let script = Script::new().on(get("/users/7").then(Answer::status(404)));
        let error = greeter(&script).greet(7).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Status);
    }

    /// Errors and responses can be made without a call, for code that is given them.
    #[test]
    fn a_made_error_is_as_good() {
        assert!(error(ErrorKind::CircuitOpen).build().is_rejected());
    }
}
