//! Follows user-service's events: one queue for each copy, which outlives both services and the broker's restarts.
//!
//! The rules:
//! - A message is acknowledged once what it says is committed. Whatever dies before that, it comes again, and changes
//!   nothing the second time.
//! - One consumer at a time (a single active consumer): other processes on the same database stand by, so that events are
//!   applied in the order of the queue.
//! - A message that can't be read, that the database refuses a few times, or that came back too often goes to the
//!   dead-letter queue. Before it goes the copy is distrusted, so a list over HTTP brings what it said.
//! - While the database is busy, gone or out of order nothing is given back: that would count against messages that are
//!   good.
//! - A queue that isn't there (new, or lost with the broker's data) means the same: distrusted before it is made.

use std::{convert::Infallible, time::Duration};

use futures_util::StreamExt as _;
use serde::Deserialize;
use service_kit::{
    amqp::{
        Broker, Ended, Session,
        lapin::{
            self, Channel, Consumer, ErrorKind, ExchangeKind,
            message::Delivery,
            options::{
                BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions,
                ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
            },
            types::{AMQPValue, FieldTable, LongString},
        },
        step,
    },
    database::is_the_datas_fault,
    extract::canonical_id,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{CopiedUser, UserCopy};
use crate::resilient_users::UserPages;

/// What user-service publishes to, and what of it.
const EXCHANGE: &str = "user-service.events";
const EVENTS: &str = "user.*";
/// Where messages go that no copy can take, of all copies.
const DEAD: &str = "order-service.users.dead";
/// Most messages that this process holds unacknowledged.
const PREFETCH: u16 = 64;
/// A queue that nobody reads for so long is deleted: its database is gone, or will be filled by a list.
const QUEUE_EXPIRES_MS: i32 = 7 * 24 * 60 * 60 * 1000;
/// Most dead letters that are kept; the oldest go first.
const MOST_DEAD: i32 = 10_000;
/// A message that came back so often took its consumers down.
const MOST_DELIVERIES: i64 = 10;
/// How often the database may refuse one event.
const MOST_REFUSALS: u32 = 3;
/// Before another try to store what could not be.
const STORE_RETRY: Duration = Duration::from_millis(500);

/// Keeps a copy up to date.
#[derive(Clone)]
pub(crate) struct Follower {
    pub(super) broker: Broker,
    pub(super) copy: UserCopy,
    pub(super) pages: UserPages,
}

/// An event as user-service publishes it.
#[derive(Deserialize)]
struct Event {
    id: i64,
    user: CopiedUser,
}

impl Follower {
    /// Follows until `stop` is cancelled.
    pub(crate) async fn run_until(self, stop: CancellationToken) {
        let broker = self.broker.clone();
        broker.sessions(stop, |session| self.clone().follow(session)).await;
    }

    async fn follow(self, session: Session) -> Result<Infallible, Ended> {
        let queue = format!("order-service.users.{}", self.copy.id().await?);
        self.declare(&session, &queue).await?;
        let channel = session.channel().await?;
        step(channel.basic_qos(PREFETCH, BasicQosOptions::default())).await?;
        let consumer = channel.basic_consume(
            queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let consumer = step(consumer).await?;
        tokio::select! {
            ended = self.consume(consumer, &session) => ended,
            never = self.keep_complete() => match never {},
        }
    }

    async fn consume(&self, consumer: Consumer, session: &Session) -> Result<Infallible, Ended> {
        let mut ready = consumer.ready_chunks(usize::from(PREFETCH));
        while let Some(deliveries) = ready.next().await {
            let (mut events, mut good, mut dead) = (Vec::new(), Vec::new(), Vec::new());
            for delivery in deliveries {
                let delivery = delivery?;
                match read(&delivery) {
                    Some(event) => {
                        events.push(event);
                        good.push(delivery);
                    }
                    None => dead.push(delivery),
                }
            }
            for refused in self.apply(&events).await.into_iter().rev() {
                dead.push(good.remove(refused));
            }
            if !dead.is_empty() {
                self.distrust(dead.len()).await;
            }
            for delivery in good {
                step(delivery.ack(BasicAckOptions::default())).await?;
            }
            for delivery in dead {
                step(delivery.reject(BasicRejectOptions { requeue: false })).await?;
            }
            session.works();
        }
        Err(Ended::Other("the broker cancelled the consumer".into()))
    }

    /// Stores what the events say, however long it takes; returns the places of those that can't be stored.
    async fn apply(&self, events: &[CopiedUser]) -> Vec<usize> {
        if events.is_empty() || self.copy.apply(events).await.is_ok() {
            return Vec::new();
        }
        // One by one, to find out whose fault it is.
        let mut refused = Vec::new();
        for (place, event) in events.iter().enumerate() {
            let mut refusals = 0;
            while let Err(error) = self.copy.apply(std::slice::from_ref(event)).await {
                if is_the_datas_fault(&error) {
                    refusals += 1;
                }
                if refusals == MOST_REFUSALS {
                    tracing::error!(%error, event = event.version, "an event can't be stored");
                    refused.push(place);
                    break;
                }
                tracing::warn!(%error, "events of users can't be stored now");
                sleep(STORE_RETRY).await;
            }
        }
        refused
    }

    async fn distrust(&self, messages: usize) {
        tracing::error!(messages, queue = DEAD, "messages that no copy can take are dead-lettered");
        while let Err(error) = self.copy.distrust().await {
            tracing::warn!(%error, "the copy of users can't be written to");
            sleep(STORE_RETRY).await;
        }
    }

    /// Makes all that isn't there yet.
    async fn declare(&self, session: &Session, queue: &str) -> Result<(), Ended> {
        let channel = session.channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let none = FieldTable::default;
        step(channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, durable, none())).await?;
        let lasting = QueueDeclareOptions { durable: true, ..Default::default() };
        step(channel.queue_declare(DEAD.into(), lasting, dead_arguments())).await?;
        if !exists(session, queue).await? {
            tracing::info!(queue, "the queue is new: events may be missing");
            self.copy.distrust().await?;
        }
        step(channel.queue_declare(queue.into(), lasting, queue_arguments())).await?;
        let bind = QueueBindOptions::default();
        step(channel.queue_bind(queue.into(), EXCHANGE.into(), EVENTS.into(), bind, none())).await?;
        if !self.copy.coverage().await?.is_synced {
            // A list that another process began before the queue was bound proves nothing.
            self.copy.distrust().await?;
        }
        Ok(())
    }
}

/// Whether the queue is there. Asking for one that isn't costs the channel it is asked on.
async fn exists(session: &Session, queue: &str) -> Result<bool, Ended> {
    const NOT_FOUND: u16 = 404;
    let channel: Channel = session.channel().await?;
    let only_look = QueueDeclareOptions { passive: true, ..Default::default() };
    match step(channel.queue_declare(queue.into(), only_look, FieldTable::default())).await {
        Ok(_) => Ok(true),
        Err(Ended::Broker(error)) if code(&error) == Some(NOT_FOUND) => Ok(false),
        Err(ended) => Err(ended),
    }
}

fn code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// Quorum queues are on the disk before they confirm, and count how often a message came back.
fn queue_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    arguments.insert("x-expires".into(), AMQPValue::LongInt(QUEUE_EXPIRES_MS));
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(DEAD));
    arguments
}

fn dead_arguments() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(MOST_DEAD));
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

/// What the message says; `None` if nobody can say, or if it came back too often.
fn read(delivery: &Delivery) -> Option<CopiedUser> {
    let headers = delivery.properties.headers().as_ref();
    let came_back = headers.and_then(|headers| headers.inner().get("x-delivery-count"));
    if came_back.and_then(AMQPValue::as_long_long_int).is_some_and(|times| times >= MOST_DELIVERIES) {
        return None;
    }
    event(&delivery.data)
}

fn event(body: &[u8]) -> Option<CopiedUser> {
    let Event { id, user } = serde_json::from_slice(body).ok()?;
    let is_sound = id > 0 && canonical_id(&user.id).as_ref() == Some(&user.id);
    is_sound.then_some(CopiedUser { version: id, ..user })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_a_number_and_a_whole_user() {
        let id = "01980000-0000-7000-8000-00000000000a";
        let user = format!(r#"{{"id":"{id}","name":"Ada","email":"a@b","created_at_ms":7}}"#);
        let read = event(format!(r#"{{"id":3,"kind":"user.created","user":{user}}}"#).as_bytes()).unwrap();
        let expected = CopiedUser {
            id: id.into(),
            name: "Ada".into(),
            email: "a@b".into(),
            created_at_ms: 7,
            version: 3,
        };
        assert_eq!(read, expected);
        for bad in [
            "",
            "{}",
            r#"{"id":3}"#,
            &format!(r#"{{"id":0,"user":{user}}}"#),
            &format!(r#"{{"id":3,"user":{}}}"#, user.replace(id, "ada")),
            &format!(r#"{{"id":3,"user":{}}}"#, user.replace("name", "nom")),
        ] {
            assert_eq!(event(bad.as_bytes()), None, "{bad}");
        }
    }
}
