//! Publishes the outbox, in order, and marks what the broker has confirmed.
//!
//! The rules:
//! - The exchange is durable, messages are persistent, and an event counts as published when the
//!   broker has confirmed it. A relay that is killed in between publishes it again: at least once,
//!   never lost. The message's id is the event's.
//! - Events go in the order of commits over one channel. A user's next event is not sent before the
//!   last one is confirmed and marked, so a user's events arrive for the first time in order, also
//!   when a confirm fails, or when the relays of several processes publish the same outbox at once.
//! - A message without a queue to go to is confirmed, too: nobody is there who wants it. Who comes
//!   later asks for the users first.

use std::{collections::HashSet, convert::Infallible, time::Duration};

use service_kit::{
    amqp::{
        Broker, Ended, Session,
        lapin::{
            BasicProperties, Channel, ExchangeKind,
            options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions},
            types::FieldTable,
        },
        step,
    },
    database::Database,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    Clock,
    outbox::{
        Outbox,
        published::{Waiting, confirmed, waiting},
    },
};

/// The topic exchange that events are published to.
const EXCHANGE: &str = "user-service.events";
/// Most events on their way at a time.
const BATCH: i64 = 64;
/// How often an idle relay looks for events of other processes, or of one that died.
const IDLE: Duration = Duration::from_secs(1);
/// What AMQP calls a message that survives the broker.
const PERSISTENT: u8 = 2;

/// Publishes one database's events.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    pub(crate) broker: Broker,
    pub(crate) database: Database,
    pub(crate) outbox: Outbox,
    pub(crate) clock: Clock,
}

impl Relay {
    /// Publishes until `stop` is cancelled.
    pub(crate) async fn run_until(self, stop: CancellationToken) {
        let broker = self.broker.clone();
        broker.sessions(stop, |session| self.clone().publish(session)).await;
    }

    async fn publish(self, session: Session) -> Result<Infallible, Ended> {
        let channel = session.channel().await?;
        step(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let exchange =
            channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, durable, FieldTable::default());
        step(exchange).await?;
        loop {
            let batch = one_of_each_user(waiting(&self.database, BATCH).await?);
            if batch.is_empty() {
                tokio::select! {
                    () = self.outbox.wake.notified() => {}
                    () = sleep(IDLE) => {}
                }
                continue;
            }
            self.publish_batch(&channel, &batch).await?;
            session.works();
        }
    }

    async fn publish_batch(&self, channel: &Channel, batch: &[Waiting]) -> Result<(), Ended> {
        let mut confirms = Vec::with_capacity(batch.len());
        let mut ended = None;
        for event in batch {
            match step(send(channel, event)).await {
                Ok(confirm) => confirms.push((event.id, confirm)),
                Err(error) => {
                    ended = Some(error);
                    break;
                }
            }
        }
        let mut last = None;
        for (id, confirm) in confirms {
            match step(confirm).await {
                Ok(answer) if answer.is_ack() => last = Some(id),
                // What comes after it may be confirmed, but is sent again behind it.
                Ok(_) => ended = Some(Ended::Other("the broker did not take an event".into())),
                Err(error) => ended = Some(error),
            }
            if ended.is_some() && last != Some(id) {
                break;
            }
        }
        if let (Some(first), Some(last)) = (batch.first(), last) {
            confirmed(&self.database, first.id, last, self.clock.now_ms()).await?;
        }
        ended.map_or(Ok(()), Err)
    }
}

async fn send(
    channel: &Channel,
    event: &Waiting,
) -> Result<service_kit::amqp::lapin::PublisherConfirm, service_kit::amqp::lapin::Error> {
    let properties = BasicProperties::default()
        .with_message_id(event.id.to_string().into())
        .with_type(event.kind.as_str().into())
        .with_app_id("user-service".into())
        .with_content_type("application/json".into())
        .with_delivery_mode(PERSISTENT);
    channel
        .basic_publish(
            EXCHANGE.into(),
            event.kind.as_str().into(),
            BasicPublishOptions::default(),
            event.body.as_bytes(),
            properties,
        )
        .await
}

/// The events up to the first whose user has one before it.
fn one_of_each_user(mut events: Vec<Waiting>) -> Vec<Waiting> {
    let mut users = HashSet::new();
    let end = events.iter().position(|event| !users.insert(event.user_id.clone())).unwrap_or(events.len());
    events.truncate(end);
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_next_event_waits_for_the_one_before_it() {
        let event = |id: i64, user: &str| Waiting {
            id,
            user_id: user.into(),
            kind: "user.changed".into(),
            body: String::new(),
        };
        let ids = |events: Vec<Waiting>| one_of_each_user(events).iter().map(|e| e.id).collect::<Vec<_>>();
        assert_eq!(ids(vec![event(1, "a"), event(2, "b"), event(3, "a"), event(4, "c")]), [1, 2]);
        assert_eq!(ids(vec![event(1, "a"), event(2, "b")]), [1, 2]);
        assert_eq!(ids(Vec::new()), [0; 0]);
    }
}
