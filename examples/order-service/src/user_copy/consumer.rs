//! Follows user-service's events: one queue for each copy, which outlives both services and the
//! broker's restarts.
//!
//! The rules:
//! - A message is acknowledged once what it says is committed. Whatever dies before that, it comes
//!   again, and changes nothing the second time.
//! - One consumer at a time (a single active consumer): other processes on the same database stand
//!   by, so that events are applied in the order of the queue.
//! - A message that can't be read, that the database refuses a few times, or that came back too
//!   often goes to the dead-letter queue. Before it goes the copy is distrusted, so a list over
//!   HTTP brings what it said.
//! - While the database is busy, gone or out of order nothing is given back: that would count
//!   against messages that are good.
//! - A queue that isn't there (new, or lost with the broker's data) means the same: distrusted
//!   before it is made.
//! - Events of another database than user-service's own are passed over. So a new copy asks
//!   user-service first, and events wait until it has answered.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
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

use super::{
    UserCopy,
    resync::Listing,
    store::{Applied, Event},
};
use crate::resilient_users::UserPages;

/// What user-service publishes to, and what of it.
const EXCHANGE: &str = "user-service.events";
const EVENTS: &str = "user.*";
/// Where messages go that no copy can take, of all copies.
const DEAD: &str = "order-service.users.dead";
/// Most messages that this process holds unacknowledged.
const PREFETCH: u16 = 64;
/// A queue that nobody reads for so long is deleted: its database is gone, or will be filled by a
/// list.
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
    /// A list that a lost session left half read.
    pub(super) unfinished: Arc<Mutex<Option<Listing>>>,
    pub(super) strangers: Arc<Strangers>,
}

/// Events of another database than user-service's was when it was last asked.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// Since somebody looked.
    pub(super) came: AtomicBool,
    is_logged: AtomicBool,
}

/// One session's means.
pub(super) struct Following<'a> {
    pub(super) session: &'a Session,
    pub(super) queue: &'a str,
}

impl Follower {
    /// Follows until `stop` is cancelled.
    pub(crate) async fn run_until(self, stop: CancellationToken) {
        let broker = self.broker.clone();
        broker.sessions(stop, |session| self.clone().follow(session)).await;
    }

    async fn follow(self, session: Session) -> Result<Infallible, Ended> {
        let queue = format!("order-service.users.{}", self.copy.id().await?);
        let following = Following { session: &session, queue: &queue };
        self.declare(&following).await?;
        self.introduce().await?;
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
            never = self.keep_complete(&following) => match never {},
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

    /// Stores what the events say, however long it takes; returns the places of those that can't be
    /// stored.
    async fn apply(&self, events: &[Event]) -> Vec<usize> {
        if events.is_empty() {
            return Vec::new();
        }
        if let Ok(applied) = self.copy.apply(events).await {
            self.note(applied);
            return Vec::new();
        }
        // One by one, to find out whose fault it is.
        let mut refused = Vec::new();
        for (place, event) in events.iter().enumerate() {
            let mut refusals = 0;
            loop {
                let error = match self.copy.apply(std::slice::from_ref(event)).await {
                    Ok(applied) => {
                        self.note(applied);
                        break;
                    }
                    Err(error) => error,
                };
                if is_the_datas_fault(&error) {
                    refusals += 1;
                }
                if refusals == MOST_REFUSALS {
                    tracing::error!(%error, event = event.change.number, "an event can't be stored");
                    refused.push(place);
                    break;
                }
                tracing::warn!(%error, "events of users can't be stored now");
                sleep(STORE_RETRY).await;
            }
        }
        refused
    }

    fn note(&self, applied: Applied) {
        if applied.diverged {
            tracing::error!("user-service's database was put back: the copy of users is begun anew");
        }
        if applied.foreign == 0 {
            return;
        }
        self.strangers.came.store(true, Ordering::Relaxed);
        if !self.strangers.is_logged.swap(true, Ordering::Relaxed) {
            tracing::warn!("events of another database than user-service's are passed over");
        }
    }

    async fn distrust(&self, messages: usize) {
        tracing::error!(messages, queue = DEAD, "messages that no copy can take are dead-lettered");
        while let Err(error) = self.copy.distrust().await {
            tracing::warn!(%error, "the copy of users can't be written to");
            sleep(STORE_RETRY).await;
        }
    }

    /// Makes all that isn't there yet.
    pub(super) async fn declare(&self, Following { session, queue }: &Following<'_>) -> Result<(), Ended> {
        let queue = *queue;
        let channel = session.channel().await?;
        let durable = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let none = FieldTable::default;
        step(channel.exchange_declare(EXCHANGE.into(), ExchangeKind::Topic, durable, none())).await?;
        let lasting = QueueDeclareOptions { durable: true, ..Default::default() };
        step(channel.queue_declare(DEAD.into(), lasting, dead_arguments())).await?;
        if !exists(session, queue).await? {
            tracing::info!(queue, "the queue is new: events may be missing");
            self.copy.unbound().await?;
        }
        step(channel.queue_declare(queue.into(), lasting, queue_arguments())).await?;
        let bind = QueueBindOptions::default();
        step(channel.queue_bind(queue.into(), EXCHANGE.into(), EVENTS.into(), bind, none())).await?;
        self.copy.bound().await?;
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
fn read(delivery: &Delivery) -> Option<Event> {
    let headers = delivery.properties.headers().as_ref();
    let came_back = headers.and_then(|headers| headers.inner().get("x-delivery-count"));
    if came_back.and_then(AMQPValue::as_long_long_int).is_some_and(|times| times >= MOST_DELIVERIES) {
        return None;
    }
    event(&delivery.data)
}

fn event(body: &[u8]) -> Option<Event> {
    let mut event: Event = serde_json::from_slice(body).ok()?;
    event.user.version = event.change.number;
    let is_sound = event.change.number > 0 && canonical_id(&event.user.id).as_ref() == Some(&event.user.id);
    is_sound.then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::user_copy::{CopiedUser, coverage::Change};

    #[test]
    fn an_event_has_a_number_and_a_whole_user() {
        let id = "01980000-0000-7000-8000-00000000000a";
        let user = format!(r#"{{"id":"{id}","name":"Ada","email":"a@b","created_at_ms":7}}"#);
        let whole = format!(
            r#"{{"id":3,"database":"d","mark":"m","previous":"l","kind":"user.created","user":{user}}}"#
        );
        let read = event(whole.as_bytes()).unwrap();
        let ada = CopiedUser {
            id: id.into(),
            name: "Ada".into(),
            email: "a@b".into(),
            created_at_ms: 7,
            version: 3,
        };
        let change = Change { number: 3, database: "d".into(), mark: "m".into(), previous: "l".into() };
        assert_eq!(read, Event { change, user: ada });
        for bad in [
            "",
            "{}",
            r#"{"id":3}"#,
            &whole.replace(r#""id":3"#, r#""id":0"#),
            &whole.replace("database", "base"),
            &whole.replace("previous", "next"),
            &whole.replace(id, "ada"),
            &whole.replace("name", "nom"),
        ] {
            assert_eq!(event(bad.as_bytes()), None, "{bad}");
        }
    }
}
