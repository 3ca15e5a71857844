//! Journeys through a real `redis-server`, which each test starts for itself.

// `clippy.toml` allows this in tests, but clippy does not see that the support is part of them.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashMap;
use std::io::Read;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use causeway_broker::{
    Asked, Broker, Delivery, LogPlace, PublishError, RedisBroker, RedisCheckup, RedisCheckupError,
    RedisConfig, RedisConfigError,
};
use causeway_protocol::Topic;
use futures_util::future;
use support::{Node, PATIENCE, RedisServer, eventually};

#[tokio::test]
async fn a_wanted_topic_becomes_live_and_then_nothing_is_missed() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis);
    redis.publish("orders.42", "before anybody wanted it");
    node.join("orders.42").await;
    redis.publish("orders.42", r#"{"total":9}"#);
    redis.publish("orders.43", "not wanted");
    redis.publish("orders.42", "");
    node.expect_message("orders.42", r#"{"total":9}"#).await;
    node.expect_message("orders.42", "").await;
    let report = node.link();
    assert!(report.up);
    assert_eq!((report.topics, report.messages_received, report.bytes_received), (1, 2, 11));
}

#[tokio::test]
async fn a_topic_is_not_live_before_redis_confirms() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis);
    node.is_up().await;
    redis.freeze();
    let ticket = node.want("news");
    let early = tokio::time::timeout(Duration::from_millis(300), node.inbox.ready()).await;
    assert!(early.is_err(), "something was delivered without Redis");
    redis.thaw();
    node.expect_live("news", ticket).await;
}

#[tokio::test]
async fn a_topic_that_is_live_already_is_live_at_once_for_the_next_wish() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis);
    node.join("news").await;
    redis.freeze();
    let ticket = node.want("news");
    node.expect_live("news", ticket).await;
    redis.thaw();
}

#[tokio::test]
async fn a_live_topic_is_live_at_once_though_another_waits_for_redis() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis);
    node.join("news").await;
    redis.freeze();
    let late = node.want("late");
    eventually("the other is noted", || node.link().topics == 2).await;
    let ticket = node.want("news");
    node.expect_live("news", ticket).await;
    redis.thaw();
    node.expect_live("late", late).await;
}

#[tokio::test]
async fn wishes_are_followed_while_a_connection_is_being_made() {
    let redis = RedisServer::start();
    redis.freeze();
    // The system accepts for it, and then nothing comes for longer than this test waits.
    let command_deadline = Duration::from_secs(600);
    let mut node = Node::start_with(RedisConfig { command_deadline, ..RedisConfig::new(redis.url()) });
    let ticket = node.want("kept");
    node.want("given-up");
    eventually("the wishes are noted", || node.link().topics == 2).await;
    node.leave("given-up");
    eventually("the leave is noted", || node.link().topics == 1).await;
    redis.thaw();
    node.expect_live("kept", ticket).await;
}

#[tokio::test]
async fn two_nodes_hear_each_other() {
    let redis = RedisServer::start();
    let (mut here, mut there) = (Node::start(&redis), Node::start(&redis));
    here.join("chat.7").await;
    there.join("chat.7").await;
    assert_eq!(here.publish("chat.7", "hello").await, Ok(()));
    here.expect_message("chat.7", "hello").await;
    there.expect_message("chat.7", "hello").await;
}

#[tokio::test]
async fn a_prefix_keeps_the_rest_of_redis_out_of_reach() {
    let redis = RedisServer::start();
    let mut node =
        Node::start_with(RedisConfig { topic_prefix: "app:".to_owned(), ..RedisConfig::new(redis.url()) });
    node.join("news").await;
    assert_eq!(redis.command::<Vec<String>>(&["PUBSUB", "CHANNELS"]), ["app:news"]);
    redis.publish("news", "not for us");
    redis.publish("app:news", "1");
    assert_eq!(node.publish("news", "2").await, Ok(()));
    node.expect_message("news", "1").await;
    node.expect_message("news", "2").await;
}

#[tokio::test]
async fn a_node_starts_without_redis_and_asks_for_many_topics_in_few_commands() {
    let mut redis = RedisServer::down();
    let mut node = Node::start(&redis);
    let mut tickets: HashMap<_, _> =
        (0..5000).map(|number| format!("t{number}")).map(|name| (name.clone(), node.want(&name))).collect();
    eventually("all wishes are noted", || node.link().topics == 5000).await;
    assert!(!node.link().up);

    redis.bring_up();
    while !tickets.is_empty() {
        let Delivery::Live(topic, ticket) = node.next().await else { panic!("only Live can come") };
        assert_eq!(tickets.remove(topic.as_str()), Some(ticket));
    }
    let statistics: String = redis.command(&["INFO", "commandstats"]);
    assert!(statistics.contains("cmdstat_subscribe:calls=10,"), "5,000 names, 512 a command: {statistics}");
    assert_eq!(node.link().reconnects, 0);
}

#[tokio::test]
async fn after_a_restart_of_redis_everything_is_live_again() {
    let mut redis = RedisServer::start();
    let mut node = Node::start(&redis);
    let ticket = node.want("a");
    node.expect_live("a", ticket).await;
    assert_eq!(node.publish("a", "1").await, Ok(()));
    node.expect_message("a", "1").await;

    redis.kill();
    node.expect_link_lost().await;
    node.is_down().await;
    // How long Redis is away, not how long we wait for something.
    tokio::time::sleep(Duration::from_millis(400)).await;
    redis.bring_up();
    node.expect_live("a", ticket).await;

    redis.publish("a", "2");
    // The publisher's connection broke too, and nobody notices.
    assert_eq!(node.publish("a", "3").await, Ok(()));
    node.expect_message("a", "2").await;
    node.expect_message("a", "3").await;
    assert_eq!(node.link().reconnects, 1);
}

#[tokio::test]
async fn what_changed_while_redis_was_away_holds_when_it_is_back() {
    let mut redis = RedisServer::start();
    let mut node = Node::start(&redis);
    node.join("old").await;
    redis.kill();
    node.expect_link_lost().await;
    node.leave("old");
    let ticket = node.want("new");
    eventually("the old topic is forgotten", || node.link().topics == 1).await;
    redis.bring_up();
    node.expect_live("new", ticket).await;
    assert_eq!(redis.command::<Vec<String>>(&["PUBSUB", "CHANNELS"]), ["new"]);
}

#[tokio::test]
async fn a_redis_that_falls_silent_is_noticed_and_taken_back() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis);
    let ticket = node.want("a");
    node.expect_live("a", ticket).await;

    redis.freeze();
    let missing_for = node.expect_link_lost().await;
    assert!(missing_for >= Duration::from_secs(3), "silent for {missing_for:?} only");

    redis.thaw();
    node.expect_live("a", ticket).await;
    redis.publish("a", "1");
    node.expect_message("a", "1").await;
}

#[tokio::test]
async fn an_idle_link_is_kept_by_its_pings() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis);
    node.join("a").await;
    let pings = || {
        let statistics: String = redis.command(&["INFO", "commandstats"]);
        let calls = statistics.split("cmdstat_ping:calls=").nth(1).and_then(|rest| rest.split(',').next());
        calls.map_or(0, |calls| calls.parse::<u32>().unwrap())
    };
    // Our own question costs one PING each time, the link's come on top.
    let (mut asked, before) = (0, pings());
    eventually("two pings of the link's", || {
        asked += 1;
        pings() >= before + asked + 2
    })
    .await;
    redis.publish("a", "1");
    node.expect_message("a", "1").await;
}

#[tokio::test]
async fn a_link_that_redis_cuts_is_back_at_once() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis);
    let ticket = node.want("a");
    node.expect_live("a", ticket).await;
    for round in 1..=3 {
        assert_eq!(redis.command::<u32>(&["CLIENT", "KILL", "TYPE", "pubsub"]), 1);
        node.expect_link_lost().await;
        node.expect_live("a", ticket).await;
        assert_eq!(node.link().reconnects, round);
    }
    redis.publish("a", "1");
    node.expect_message("a", "1").await;
}

#[tokio::test]
async fn a_topic_is_given_up_a_second_after_its_last_worker_left() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis);
    node.join("a").await;
    assert_eq!(redis.subscribers("a"), 1);
    let left_at = Instant::now();
    node.leave("a");
    eventually("Redis is told", || redis.subscribers("a") == 0).await;
    assert!(left_at.elapsed() >= Duration::from_secs(1), "after {:?} already", left_at.elapsed());
    assert_eq!(node.link().topics, 0);

    node.join("a").await;
    redis.publish("a", "again");
    node.expect_message("a", "again").await;
}

#[tokio::test]
async fn publishes_arrive_in_the_order_of_the_calls() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis);
    node.join("a").await;
    let publishes = (0..3000).map(|number| {
        let topic = Topic::parse("a").unwrap();
        node.broker.publish(topic, number.to_string().into())
    });
    let outcomes = future::join_all(publishes).await;
    assert!(outcomes.iter().all(Result::is_ok));
    for number in 0..3000 {
        node.expect_message("a", &number.to_string()).await;
    }
}

#[tokio::test]
async fn publishes_without_redis_fail_at_their_deadline() {
    let mut redis = RedisServer::start();
    let deadline = Duration::from_millis(500);
    let node = Node::start_with(RedisConfig { command_deadline: deadline, ..RedisConfig::new(redis.url()) });
    assert_eq!(node.publish("a", "1").await, Ok(()));

    redis.freeze();
    for payload in ["2", "3"] {
        assert_eq!(node.publish("a", payload).await, Err(PublishError::Unavailable));
    }
    redis.kill();
    assert_eq!(node.publish("a", "4").await, Err(PublishError::Unavailable));

    redis.bring_up();
    let recovered = async {
        while let Err(error) = node.publish("a", "5").await {
            assert_eq!(error, PublishError::Unavailable);
        }
    };
    tokio::time::timeout(PATIENCE, recovered).await.expect("publishing works again");
}

#[tokio::test]
async fn too_many_waiting_publishes_are_refused_at_once() {
    let redis = RedisServer::start();
    let node = Node::start_with(RedisConfig { publishes_waiting_max: 3, ..RedisConfig::new(redis.url()) });
    node.is_up().await;
    redis.freeze();
    let topic = Topic::parse("a").unwrap();
    let publishes = (0..20).map(|_| node.broker.publish(topic.clone(), "x".into()));
    let outcomes = future::join_all(publishes).await;
    let busy = outcomes.iter().filter(|outcome| **outcome == Err(PublishError::Busy)).count();
    let unavailable = outcomes.iter().filter(|outcome| **outcome == Err(PublishError::Unavailable)).count();
    assert_eq!(busy + unavailable, 20);
    // Three may wait, and three may be on their way.
    assert!((3..=6).contains(&unavailable), "{unavailable} were taken in");
}

#[tokio::test]
async fn what_an_inbox_has_no_room_for_is_announced() {
    let redis = RedisServer::start();
    let mut node = Node::start_with_inbox(RedisConfig::new(redis.url()), 1000);
    node.join("a").await;
    node.join("b").await;
    redis.publish("b", "1");
    for number in 0..20 {
        redis.publish("a", &number.to_string());
    }
    eventually("all have arrived", || node.link().messages_received == 21).await;

    node.expect_message("b", "1").await;
    let mut delivered = 0;
    let dropped = loop {
        match node.next().await {
            Delivery::Publication(p, _) => {
                assert_eq!(p.payload(), delivered.to_string().as_bytes());
                delivered += 1;
            }
            other => break other,
        }
    };
    assert!(matches!(&dropped, Delivery::Dropped { topic, .. } if topic.as_str() == "a"), "{dropped:?}");
    assert_eq!(node.link().dropped_overload, 20 - delivered);
    assert!(delivered > 0);
    redis.publish("a", "after the gap");
    node.expect_message("a", "after the gap").await;
}

#[tokio::test]
async fn too_large_a_payload_is_announced_in_its_place() {
    let redis = RedisServer::start();
    let mut node = Node::start_with(RedisConfig { payload_bytes_max: 4, ..RedisConfig::new(redis.url()) });
    node.join("a").await;
    for payload in ["four", "fives", "1"] {
        redis.publish("a", payload);
    }
    node.expect_message("a", "four").await;
    node.expect_dropped("a").await;
    node.expect_message("a", "1").await;
    assert_eq!((node.link().dropped_too_large, node.link().dropped_overload), (1, 0));
}

#[tokio::test]
async fn a_topic_that_redis_refuses_holds_nobody_else_up() {
    let redis = RedisServer::start();
    redis.command::<String>(&["ACL", "SETUSER", "default", "resetchannels", "&open.*"]);
    let mut node = Node::start(&redis);
    node.is_up().await;
    // The wishes gather while Redis cannot answer, and so come in one command.
    redis.freeze();
    let before = node.want("open.0");
    eventually("the first wish is on its way", || node.link().topics == 1).await;
    let mut tickets: HashMap<_, _> = (1..=9)
        .flat_map(|number| [format!("open.{number}"), format!("closed.{number}")])
        .map(|name| (name.clone(), node.want(&name)))
        .collect();
    eventually("the others are noted", || node.link().topics == 19).await;
    redis.thaw();
    node.expect_live("open.0", before).await;
    for _ in 1..=9 {
        let Delivery::Live(topic, ticket) = node.next().await else { panic!("only Live can come") };
        assert!(topic.as_str().starts_with("open."));
        assert_eq!(tickets.remove(topic.as_str()), Some(ticket));
    }
    let refusals = || {
        let statistics: String = redis.command(&["INFO", "commandstats"]);
        let line = statistics.lines().find(|line| line.starts_with("cmdstat_subscribe:")).unwrap();
        line.split("rejected_calls=").nth(1).unwrap().split(',').next().unwrap().parse::<u32>().unwrap()
    };
    // Together at first, then each alone.
    eventually("each forbidden name is refused", || refusals() >= 10).await;
    assert_eq!(refusals(), 10);
    assert_eq!(node.link().reconnects, 0, "the link was not given up for it");

    let refused = node.publish("closed.1", "x").await;
    assert!(matches!(refused, Err(PublishError::Refused(_))), "{refused:?}");
    assert_eq!(node.publish("open.1", "x").await, Ok(()));
    node.expect_message("open.1", "x").await;
}

#[tokio::test]
async fn a_live_topic_that_is_forbidden_while_the_link_is_away_is_announced() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis);
    node.join("news").await;
    // Cuts the link as well, for it has a channel that is not allowed any more.
    redis.command::<String>(&["ACL", "SETUSER", "default", "resetchannels"]);
    node.expect_link_lost().await;
    node.expect_dropped("news").await;
    assert!(node.link().up);
}

#[tokio::test]
async fn the_documented_access_rules_suffice() {
    let redis = RedisServer::start();
    redis.command::<String>(&documented_access_rules());
    let mut node = Node::start_with(RedisConfig::new(redis.url().replace("//", "//causeway:secret@")));

    let ticket = node.want("news");
    node.expect_live("news", ticket).await;
    assert_eq!(node.publish("news", "1").await, Ok(()));
    node.expect_message("news", "1").await;
    let publishing = || {
        let clients: String = redis.command(&["CLIENT", "LIST", "TYPE", "normal"]);
        let ours = clients.lines().filter(|client| client.contains(" user=causeway "));
        ours.map(|client| client.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let connection = publishing();
    assert_eq!(connection.len(), 1);

    // After a loss the publishing connection is tried out before it is used again.
    assert_eq!(redis.command::<u32>(&["CLIENT", "KILL", "TYPE", "pubsub"]), 1);
    node.expect_link_lost().await;
    node.expect_live("news", ticket).await;
    assert_eq!(node.publish("news", "2").await, Ok(()));
    node.expect_message("news", "2").await;
    assert_eq!(publishing(), connection, "it was thrown away");

    node.leave("news");
    eventually("the topic is given up", || redis.subscribers("news") == 0).await;
    assert_eq!(node.broker.append(&topic("_causeway.revoked"), "1".into()).await, Ok(()));
    assert_eq!(read_log(&node, "_causeway.revoked").await, ["1"]);
    assert_eq!(redis.command::<Vec<redis::Value>>(&["ACL", "LOG"]), [], "something was refused");
    let elsewhere = node.broker.append(&topic("orders"), "1".into()).await;
    assert!(matches!(elsewhere, Err(PublishError::Refused(_))), "no other key is ours: {elsewhere:?}");
}

fn topic(name: &str) -> Topic {
    Topic::parse(name).unwrap()
}

/// All entries of a log, page by page.
async fn read_log(node: &Node, name: &str) -> Vec<String> {
    let mut entries: Vec<(LogPlace, String)> = Vec::new();
    loop {
        let page = node.broker.read_log(&topic(name), entries.last().map(|(place, _)| place)).await.unwrap();
        if page.is_empty() {
            return entries.into_iter().map(|(_, entry)| entry).collect();
        }
        let text = |entry: &[u8]| String::from_utf8(entry.to_vec()).unwrap();
        entries.extend(page.into_iter().map(|(place, entry)| (place, text(&entry))));
    }
}

#[tokio::test]
async fn a_log_keeps_its_entries_in_order_for_who_comes_later() {
    let redis = RedisServer::start();
    let config = RedisConfig { topic_prefix: "live:".to_owned(), ..RedisConfig::new(redis.url()) };
    let node = Node::start_with(config.clone());
    assert_eq!(read_log(&node, "_log").await, [""; 0]);
    let numbers: Vec<String> = (0..1_234).map(|number| number.to_string()).collect();
    let appended = numbers.iter().map(|number| node.broker.append(&topic("_log"), number.clone().into()));
    assert!(future::join_all(appended).await.iter().all(Result::is_ok));
    assert_eq!(redis.command::<usize>(&["XLEN", "live:_log"]), 1_234);
    drop(node);
    let late = Node::start_with(config);
    assert_eq!(read_log(&late, "_log").await, numbers);
    // What somebody else has put there is passed over, and reading goes on behind it.
    redis.command::<String>(&["XADD", "live:_log", "*", "other", "field"]);
    late.broker.append(&topic("_log"), "last".into()).await.unwrap();
    assert_eq!(read_log(&late, "_log").await[1_234..], ["", "last"]);
    redis.command::<String>(&["SET", "live:text", "1"]);
    assert!(matches!(
        late.broker.read_log(&topic("text"), None).await,
        Err(PublishError::Unavailable | PublishError::Refused(_))
    ));
}

#[tokio::test]
async fn without_redis_a_log_is_not_to_be_had() {
    let node = Node::start(&RedisServer::down());
    assert_eq!(node.broker.append(&topic("_log"), "1".into()).await, Err(PublishError::Unavailable));
    assert_eq!(node.broker.read_log(&topic("_log"), None).await, Err(PublishError::Unavailable));
}

/// What a look at the server finds, by the user of this name and password.
async fn checkup(redis: &RedisServer, user: &str, topic: Option<&str>) -> RedisCheckup {
    let config = RedisConfig {
        topic_prefix: "app.".to_owned(),
        ..RedisConfig::new(redis.url().replace("//", &format!("//{user}")))
    };
    let topic = topic.map(|name| Topic::parse(name).unwrap());
    RedisCheckup::of(&config, topic.as_ref()).await.unwrap()
}

fn refused(checkup: &RedisCheckup) -> Vec<&str> {
    let refused = checkup.rights.iter().filter(|right| right.refusal.is_some());
    refused.map(|right| right.command).collect()
}

#[tokio::test]
async fn a_look_at_redis_finds_how_it_is_set() {
    let redis = RedisServer::start();
    redis.command::<String>(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 512kb 5"]);
    let found = checkup(&redis, "", None).await;
    assert_eq!(redis.command::<usize>(&["DBSIZE"]), 0, "a look leaves nothing behind");
    let info: String = redis.command(&["INFO", "server"]);
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap();
    assert_eq!(found.version.as_deref(), Some(version));
    assert_eq!(found.user, Asked::Told("default".to_owned()));
    assert!(
        matches!(&found.output_buffer_limit, Asked::Told(limit) if limit.contains("pubsub 1048576 524288 5"))
    );
    assert!(
        matches!(found.clock_ahead_ms, Asked::Told(ahead) if ahead.abs() < 1_000),
        "one machine, one clock"
    );
    assert!(found.rights.iter().all(|right| right.place == "app._causeway.doctor"));
    assert_eq!(refused(&found), [] as [&str; 0]);
}

#[tokio::test]
async fn a_look_at_redis_finds_what_is_forbidden() {
    let redis = RedisServer::start();
    let rules = ["+ping", "+hello", "+subscribe", "+unsubscribe", "resetchannels", "&app.open.*"];
    redis.command::<String>(&[&["ACL", "SETUSER", "little", "on", ">secret"][..], &rules].concat());
    let found = checkup(&redis, "little:secret@", None).await;
    assert_eq!(refused(&found), ["SUBSCRIBE", "PUBLISH", "UNWATCH", "XADD", "XRANGE"]);
    let found = checkup(&redis, "little:secret@", Some("open.1")).await;
    assert_eq!(refused(&found), ["PUBLISH", "UNWATCH", "XADD", "XRANGE"]);
    assert_eq!(found.user, Asked::NotAllowed);
    assert_eq!(found.output_buffer_limit, Asked::NotAllowed);
    assert_eq!(found.clock_ahead_ms, Asked::NotAllowed);
    assert!(found.version.is_some());
}

#[tokio::test]
async fn a_look_at_redis_takes_what_the_documented_access_rules_allow() {
    let redis = RedisServer::start();
    // As the document says for a prefix.
    let prefixed = |rule| if rule == "~_causeway.*" { "~app._causeway.*" } else { rule };
    let rules: Vec<_> = documented_access_rules().into_iter().map(prefixed).collect();
    redis.command::<String>(&rules);
    let found = checkup(&redis, "causeway:secret@", None).await;
    assert_eq!(refused(&found), [] as [&str; 0]);
}

#[tokio::test]
async fn a_redis_that_does_not_answer_is_not_waited_for() {
    let redis = RedisServer::start();
    redis.freeze();
    let config =
        RedisConfig { command_deadline: Duration::from_millis(200), ..RedisConfig::new(redis.url()) };
    assert!(RedisCheckup::of(&config, None).await.is_err());
    redis.thaw();
    let elsewhere = RedisConfig::new(RedisServer::down().url());
    assert!(matches!(RedisCheckup::of(&elsewhere, None).await, Err(RedisCheckupError::Unreachable(_))));
    let stranger = RedisConfig::new(redis.url().replace("//", "//me:sesame@"));
    let error = RedisCheckup::of(&stranger, None).await.unwrap_err();
    assert!(
        matches!(error, RedisCheckupError::Unreachable(_)) && !error.to_string().contains("sesame"),
        "{error}"
    );
}

/// `ACL SETUSER` for the user that the documents recommend.
fn documented_access_rules() -> Vec<&'static str> {
    let documented = include_str!("../../../docs/publishing.md")
        .split('`')
        .find(|code| code.starts_with("ACL SETUSER causeway "))
        .expect("the document shows the rules");
    documented.split(' ').map(|word| word.trim_matches('\'')).collect()
}

#[tokio::test]
async fn a_node_that_redis_does_not_let_in_goes_on_asking() {
    let redis = RedisServer::start();
    redis.command::<String>(&["ACL", "SETUSER", "gateway", "on", ">other", "allchannels", "+@all"]);
    let url = redis.url().replace("redis://", "redis://gateway:sesame@");
    let mut node = Node::start_with(RedisConfig::new(url));
    let ticket = node.want("a");
    let refusals = || {
        let log: Vec<redis::Value> = redis.command(&["ACL", "LOG"]);
        log.len()
    };
    eventually("Redis has refused the password", || refusals() > 0).await;
    assert_eq!(node.publish("a", "1").await, Err(PublishError::Unavailable));
    assert!(!node.link().up);
    redis.command::<String>(&["ACL", "SETUSER", "gateway", ">sesame"]);
    node.expect_live("a", ticket).await;
}

#[tokio::test]
async fn dropping_the_broker_closes_its_connections() {
    let redis = RedisServer::start();
    let mut node = Node::start(&redis);
    node.join("a").await;
    assert_eq!(node.publish("a", "1").await, Ok(()));
    let clients = || redis.command::<String>(&["CLIENT", "LIST"]).lines().count();
    eventually("the plain client and the node's two", || clients() == 3).await;
    drop(node);
    eventually("the plain client alone", || clients() == 1).await;
}

#[test]
fn a_rediss_url_is_spoken_to_in_tls() {
    let listener = TcpListener::bind((support::own_address(), 0)).unwrap();
    let url = format!("rediss://{}", listener.local_addr().unwrap());
    let broker = RedisBroker::start(RedisConfig::new(url)).unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    let mut record_head = [0; 3];
    socket.read_exact(&mut record_head).unwrap();
    // RFC 8446, section 5.1: a handshake record, its legacy version 3.1.
    assert_eq!(record_head, [22, 3, 1]);
    assert!(!broker.link().up);
}

#[test]
fn a_configuration_that_cannot_work_is_refused_without_showing_the_password() {
    for url in ["", "http://me:sesame@localhost", "redis://me:sesame@", "redis://me:sesame@localhost/x"] {
        let error = RedisBroker::start(RedisConfig::new(url)).unwrap_err();
        assert!(matches!(error, RedisConfigError::Url(_)), "{url}: {error:?}");
        assert!(!format!("{error} {error:?}").contains("sesame"), "{error:?}");
    }
    let config = RedisConfig::new("redis://me:sesame@localhost");
    assert!(!format!("{config:?}").contains("sesame"));
    let no_room = RedisConfig { publishes_waiting_max: 0, ..config.clone() };
    assert!(matches!(RedisBroker::start(no_room), Err(RedisConfigError::Zero("publishes_waiting_max"))));
    let no_time = RedisConfig { command_deadline: Duration::ZERO, ..config };
    assert!(matches!(RedisBroker::start(no_time), Err(RedisConfigError::Zero("command_deadline"))));
}
