//! What is said.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    sync::atomic::Ordering,
};

use crate::{
    audit::Audit,
    cli::Options,
    fleet::{Fleet, With},
    journal::{Answer, Journal},
    load::Load,
};

pub(crate) fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

pub(crate) fn introduction(options: &Options, with: With, seed: u64) -> String {
    let database = if with.postgres { "Postgres" } else { "SQLite" };
    let mut text = format!(
        "{} kills: 2 order-services, 3 user-services, {}{} (--seed {seed})",
        options.kills,
        database,
        if with.broker { ", RabbitMQ" } else { "" },
    );
    if !with.postgres {
        text += if options.sqlite {
            "\nno Postgres, as asked for: SQLite's files have no process to kill"
        } else {
            "\nno Postgres on this machine: SQLite instead, whose files have no process to kill"
        };
    }
    if !with.broker {
        text += match (options.no_broker, cfg!(feature = "amqp")) {
            (true, _) => "\nno broker, as asked for: order-service asks user-service about every user",
            (false, true) => {
                "\nno RabbitMQ on this machine: order-service asks user-service about every user"
            }
            (false, false) => {
                "\nbuilt without --features amqp: order-service asks user-service about every user"
            }
        };
    }
    text
}

pub(crate) fn progress(kills: u32, seconds: u64, load: &Load) -> String {
    let answered = load.answered.load(Ordering::Relaxed);
    format!("{seconds:>5} s  {kills:>4} kills  {answered:>6} requests answered")
}

pub(crate) fn verdict(
    fleet: &Fleet,
    journal: &Journal,
    audit: &Audit,
    are_events_through: bool,
    (havoc_s, settling_s): (u64, u64),
    seed: u64,
    held: bool,
) -> String {
    let mut text = String::from("\nkilled            times  while starting  gave up starting\n");
    let mut kills = 0;
    for member in &fleet.members {
        let name = &member.name;
        let _ = writeln!(
            text,
            "{name:<18}{:>5}{:>16}{:>18}",
            member.kills, member.kills_in_start, member.gave_up
        );
        kills += member.kills;
    }
    let at_once = journal.orders.iter().filter(|order| matches!(order.answer, Answer::Confirmed(_))).count();
    let users = journal.users.iter().filter(|user| user.id.is_some()).count();
    let _ = writeln!(
        text,
        "\nin {havoc_s} s, and {settling_s} s to settle: {users} users created, {} orders acknowledged ({at_once} confirmed \
         at once,\n{} to be verified), {} refused for want of a user, {} given up by their client; {} tries failed,\n\
         {} requests were sent again after their answer",
        audit.acknowledged,
        audit.acknowledged - at_once,
        audit.refused,
        audit.given_up,
        journal.failed_tries,
        journal.asked_again,
    );
    let Audit { lost, doubled, misjudged, pending, settled_otherwise, .. } = audit;
    let Audit { users_lost, users_doubled, answered_otherwise, .. } = audit;
    let _ = writeln!(
        text,
        "users: {users_lost} lost, {users_doubled} doubled; answers: {answered_otherwise} changed; orders settled other than \
         once: {settled_otherwise}"
    );
    if fleet.has_broker {
        let events =
            if are_events_through { "all published and copied" } else { "NOT all published and copied" };
        let _ = writeln!(text, "events of users: {events}");
    }
    let verdict = if held { "held" } else { "did NOT hold" };
    let _ = write!(
        text,
        "{kills} kills: {lost} orders lost, {doubled} doubled, {misjudged} misjudged, {pending} pending: {verdict} (--seed {seed})"
    );
    text
}
