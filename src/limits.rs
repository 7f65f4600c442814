//! Every number that bounds the program: sizes, deadlines, caps. Each with its unit, its reason and
//! what the C proxy has in its place.

use core::time::Duration;

// --- clients ---------------------------------------------------------------------------------

/// Bytes of the obfuscated2 header (protocol.md 3.1).
pub const HEADER_LEN: usize = 64;
/// Bytes of the header that decide its keys: a replay has the same (protocol.md 3.2).
pub const HEADER_PROOF: usize = 56;
/// Longest packet from a client, bytes, padding included (protocol.md 4.1). C: the same.
pub const MAX_CLIENT_PACKET: usize = 1_044_480;
/// Shortest message that is forwarded, bytes (protocol.md 7.4). C: the same.
pub const MIN_MESSAGE: usize = 28;
/// Shortest encrypted message that is forwarded, bytes (protocol.md 7.4). C: the same.
pub const MIN_ENCRYPTED_MESSAGE: usize = 56;
/// Secrets that -S may give: each costs a key set-up for every connecting stranger. C: the same.
pub const MAX_SECRETS: usize = 16;
/// Secrets in all, with those of files: a stranger's hello is tried with each. C: none.
pub const MAX_FILE_SECRETS: usize = 1_024;
/// Longest file of --secret-file, bytes: room for so many with all that a line may hold. C: none.
pub const MAX_SECRET_FILE: usize = 512 << 10;
/// Longest file of what quotas have been used, bytes: a line takes at most 75. C: none.
pub const MAX_USAGE_FILE: usize = 128 << 10;
/// Longest label of a secret, bytes. C: none.
pub const MAX_LABEL: usize = 32;
/// Longest domain of an ee secret, bytes (protocol.md 5.8): clients refuse longer ones.
pub const MAX_DOMAIN: usize = 182;
/// Domains that -D may give; ee secrets add their own. C: none.
pub const MAX_DOMAINS: usize = 64;
/// Strangers that are shown the mask site at a time where --mask-max gives none: one for so many clients.
/// C: none.
pub const MASK_SHARE: u32 = 8;
/// But at least so many, and at most.
pub const MIN_MASK: u32 = 64;
/// See above.
pub const MAX_MASK: u32 = 512;
/// Most that --mask-max may give: each is a client less. C: none.
pub const MAX_MASK_MAX: u32 = 4096;
/// How long ago a ClientHello may have been made, seconds, where --tls-skew gives nothing
/// (protocol.md 5.3). C: the same.
pub const TLS_SKEW_BACK: u32 = 600;
/// How far ahead of ours its clock may be, seconds. C: the same.
pub const TLS_SKEW_AHEAD: u32 = 3;
/// Most seconds back that --tls-skew may give: two days. C: entries of its replay table live so long.
pub const MAX_TLS_SKEW_BACK: u32 = 172_800;
/// Most seconds ahead that --tls-skew may give: a day, for a clock set to local time. C: none.
pub const MAX_TLS_SKEW_AHEAD: u32 = 86_400;
/// Longest name of a host in --server, --mask and --dc-override, bytes (RFC 1035).
pub const MAX_HOST_NAME: usize = 253;
/// From accept to the complete header; a real deadline. C: 10 s with -D, none without.
pub const CLIENT_HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a client's first packet waits for a middle proxy. C: it is dropped at once.
pub const READY_WAIT: Duration = Duration::from_secs(10);
/// Clients of one set of targets that may wait at a time; more are closed at once.
pub const MAX_WAITING: usize = 4096;
/// The reader's buffer while a client is idle, bytes: it is on the stack and stays resident.
pub const READ_SMALL: usize = 1024;
/// Most bytes that may wait for one client. C: the same. Less when memory is small.
pub const MAX_OUTBOX: usize = 32 << 20;
/// The cap on small machines.
pub const MIN_OUTBOX: usize = 8 << 20;
/// How long a client that is to be closed may take to fetch what is queued for it. C: none.
pub const CLOSE_DRAIN: Duration = Duration::from_secs(60);
/// How long SIGTERM waits for outboxes to drain. C: exits at once.
pub const STOP_DRAIN: Duration = Duration::from_secs(5);
/// It ends earlier once everybody has got everything and neither says nor takes anything for so long.
pub const STOP_QUIET: Duration = Duration::from_millis(500);
/// SO_SNDTIMEO of client sockets: how often a stalled writer looks at its deadline.
pub const CLIENT_SEND_STEP: Duration = Duration::from_secs(10);
/// Keep-alive of client sockets: first probe, seconds of silence: before a carrier's NAT
/// forgets the connection. C: system default (7 200 s).
pub const KEEPALIVE_IDLE: u32 = 60;
/// Keep-alive of client sockets: seconds between probes.
pub const KEEPALIVE_INTERVAL: u32 = 10;
/// Keep-alive of client sockets: unanswered probes that end a connection.
pub const KEEPALIVE_PROBES: u32 = 3;
/// At a secret's limit, a client that has been silent for so long is closed for a new one. C: no limit.
pub const LIMIT_SILENCE: Duration = Duration::from_secs(90);
/// How long the new one waits for its place.
pub const LIMIT_WAIT: Duration = Duration::from_secs(1);
/// TCP_USER_TIMEOUT of client sockets: unacknowledged data ends a connection after this. Not less
/// than keep-alive takes with all its probes: Linux ends a connection at the first unanswered probe
/// after this time, whatever the number of probes.
pub const CLIENT_USER_TIMEOUT: Duration = Duration::from_secs(120);

/// Most bytes of a packet over HTTP, exclusive (protocol.md 10.3). C: the same.
pub const MAX_HTTP_BODY: u64 = 1_044_480;
/// Longest target of such a request, bytes (protocol.md 10.3). C: the same.
pub const MAX_HTTP_TARGET: usize = 14;
/// Longest Origin, Referer and User-Agent that middle proxies are told, bytes (protocol.md 7.2). C: the
/// same.
pub const MAX_HTTP_FIELD: usize = 1022;
/// How long an HTTP client's request waits for its answer (protocol.md 10.3). C: the same.
pub const HTTP_ANSWER: Duration = Duration::from_secs(960);
/// From the first byte of a kept connection's next request to its last. C: none.
pub const HTTP_REQUEST: Duration = Duration::from_secs(10);
/// How long a kept connection is silent between two requests, and how often a thread that waits for
/// its client looks whether that has begun. C: none.
pub const HTTP_IDLE: Duration = Duration::from_secs(60);

/// Connections at a time that have proven no secret, where --max-unauthenticated gives none: one for so
/// many clients. C: they are clients.
pub const UNAUTHENTICATED_SHARE: u32 = 4;
/// But at least so many, and at most.
pub const MIN_UNAUTHENTICATED: u32 = 64;
/// See above.
pub const MAX_UNAUTHENTICATED: u32 = 4096;
/// While their places are scarce, connections that one IPv4 address or IPv6 /64 may have among them: a
/// household, or a carrier's NAT. One sixteenth of the places if that is more. C: no limit.
pub const SOURCE_PLACES: usize = 64;
/// While they are scarce, how often a source may connect, after a burst. C: no limit.
pub const SOURCE_INTERVAL: Duration = Duration::from_millis(125);
/// Connections of a source that may come at once.
pub const SOURCE_BURST: u32 = 32;
/// A connection that has sent nothing for longer than this is dropped before others: a client's first bytes
/// come within a round trip, over a bad radio link, too.
pub const FIRST_BYTES: Duration = Duration::from_secs(1);
/// Places that are looked at to find the one that is dropped early.
pub const DROP_SAMPLE: usize = 16;

/// From accept to a whole PROXY protocol header: the front sends it at once. C: takes none.
pub const PROXY_HEADER: Duration = Duration::from_secs(2);
/// Longest PROXY protocol header, bytes; fronts are asked to stay below 536. Not more than `READ_SMALL`.
pub const MAX_PROXY_HEADER: usize = 1024;

/// How long accepting pauses when the system is out of descriptors or memory.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

// --- fake TLS --------------------------------------------------------------------------------

/// Longest ClientHello, bytes without its record headers; today's take 1.9 KB. C: looks at 4096.
pub const MAX_HELLO: usize = 16_384;
/// Records that a ClientHello may be split over: a hello of 1 byte a record is an attack. C: 1.
pub const MAX_HELLO_RECORDS: usize = 10;
/// Seconds since 1970 at the time of this release: a clock that says less is wrong.
pub const RELEASED: u64 = 1_793_491_200;
/// The end of 2050: a clock that says more is wrong.
pub const CLOCK_HORIZON: u64 = 2_556_144_000;
/// Accepted ClientHellos and headers that one table of the replay store remembers; it takes 512 KiB.
pub const REPLAY_TABLE: usize = 1 << 16;
/// The first table's, 32 KiB; each further one is twice as large, up to [`REPLAY_TABLE`].
pub const REPLAY_FIRST: usize = 1 << 12;
/// Tables of the replay store, at most: a million entries. C: all of two days.
pub const REPLAY_TABLES: usize = 16;
/// The replay store takes at most this part of the machine's memory: with 64 MB, two tables of 512 KiB.
pub const REPLAY_SHARE: u64 = 64;
/// Entries that may wait to be written to the replay store's file.
pub const REPLAY_QUEUE: usize = 4096;
/// Shortest encrypted part of our first flight, bytes of its one record's payload.
pub const MIN_FLIGHT: usize = 64;
/// Longest one: what TLS allows one record (RFC 8446 5.2).
pub const MAX_FLIGHT: usize = 16_640;
/// Shortest flight where nothing is known of the site. C: 2500.
pub const FALLBACK_FLIGHT: usize = 2000;
/// How many lengths there are from the shortest on: 2000 to 4700, as sites with one or two certificates
/// have.
/// C: 1120.
pub const FALLBACK_FLIGHT_SPREAD: u32 = 2701;
/// Flights of a site that are remembered for each kind of hello: several rounds of probes.
pub const FLIGHTS_KEPT: usize = 16;
/// Payload of the first record on a stream to the client, bytes: fits one segment. C: at most 1425.
pub const RECORD_START: usize = 1369;
/// From our first flight to the complete header in the client's first record: phones open connections
/// early. C: what is left of 10 s.
pub const FIRST_RECORD: Duration = Duration::from_secs(30);
/// Connecting to a mask site, for strangers and probes.
pub const SITE_CONNECT: Duration = Duration::from_secs(5);
/// How long a stranger waits for the first lookup of its site's name.
pub const MASK_LOOKUP: Duration = Duration::from_secs(3);
/// A stranger's connection that is silent in both directions for so long is closed: longer than web
/// servers keep one (nginx 75 s, Apache up to 300 s). C: never.
pub const MASK_IDLE: Duration = Duration::from_secs(310);
/// How long a stranger waits for a place at the site while --mask-max are there.
pub const MASK_WAIT: Duration = Duration::from_secs(30);
/// How often it looks meanwhile whether somebody there is idle.
pub const MASK_LOOK: Duration = Duration::from_secs(1);
/// While strangers wait, whoever has been idle at the site for so long gives way.
pub const MASK_SCARCE_IDLE: Duration = Duration::from_secs(10);
/// One source has this part of the places there from half of them on, and as many more may wait.
pub const MASK_SOURCES: usize = 8;
/// Buffer of each direction of a stranger's connection, bytes.
pub const MASK_BUFFER: usize = 16 << 10;
/// How often sites are looked up and probed, give or take an eighth. C: at start only.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(3600);
/// The first wait after a round with a failure; it doubles up to the usual interval.
pub const PROBE_RETRY: Duration = Duration::from_secs(2);
/// Probes with each of the six kinds of hello, in one round. C: 20 in all.
pub const PROBE_TIMES: u32 = 3;
/// A site's first flight has ended when it is silent for so long.
pub const PROBE_SILENCE: Duration = Duration::from_millis(250);
/// A site's whole first flight. C: the same for all of its probes.
pub const PROBE_FLIGHT: Duration = Duration::from_secs(5);
/// Longer flights of a site are cut off, bytes.
pub const MAX_SITE_FLIGHT: usize = 64 << 10;
/// After so many milliseconds of silence records begin small again, as web servers' do.
pub const RECORD_PAUSE: u32 = 1000;

// --- web pages (proxy type WEB), of which C knows nothing ------------------------------------

/// Longest path of a page, bytes, without the slashes around it: the apps refuse longer ones.
pub const WEB_PATH: usize = 128;
/// Bytes that each side of a lane may send before the other one says more: the apps and pages know no other.
pub const WEB_WINDOW: u32 = 4 << 20;
/// Longest message of a client, bytes: what the apps send at a time.
pub const WEB_MESSAGE: usize = 2 << 20;
/// Frames that one message may hold: as the apps' own relay.
pub const WEB_BATCH: u32 = 4096;
/// Longest payload of a client's frame, bytes.
pub const WEB_DATA: u32 = 1 << 20;
/// Longest piece of data for a client, bytes: with its heads it fits 64 KiB, which every app takes.
pub const WEB_PIECE: usize = (64 << 10) - 12;
/// A lane is asked for a sign of life when its client was silent for so long, and closed after as long again:
/// web servers in front give up after a minute.
pub const WEB_SILENCE: Duration = Duration::from_secs(25);
/// Bytes that a lane's client may be told besides its data while that is on its way: answers to its pings, and what
/// it may send more: 14 bytes for each read, so that a whole window in short reads fits.
pub const WEB_PENDING: usize = 96 << 10;
/// How long a lane's connection may take nothing of what it is sent.
pub const WEB_WRITE: Duration = Duration::from_secs(30);
/// How long a page may take to begin its session, and a session lives without a lane, seconds.
pub const WEB_GRACE: u32 = 120;
/// Sessions at a time: each takes a few hundred bytes.
pub const WEB_SESSIONS: usize = 4096;
/// Lanes of a session at a time; the apps open at most 64.
pub const WEB_LANES: u32 = 128;
/// Numbers of a session's last lanes, none of which may come again: of all that may be there, at least.
pub const WEB_LANES_KEPT: usize = WEB_LANES as usize;
/// The port for web pages where --web-listen gives none.
pub const WEB_PORT: u16 = 8080;
/// Pages that --web may give.
pub const MAX_WEB: usize = 16;
/// Networks that --web-trust may give.
pub const MAX_WEB_NETS: usize = 64;

// --- commands -------------------------------------------------------------------------------

/// `ping`: everything, unless --timeout says otherwise.
pub const PING_TIME: Duration = Duration::from_secs(10);
/// `ping`: most that --timeout takes.
pub const PING_MOST: Duration = Duration::from_secs(300);
/// `ping`: most that --count takes: each is a key exchange begun, and Telegram isn't to be flooded.
pub const PING_COUNT: u32 = 20;
/// `doctor`: everything.
pub const DOCTOR_TIME: Duration = Duration::from_secs(5);
/// `doctor`: what it asks of Telegram ends so long before that, to be told with its reason.
pub const DOCTOR_DIAL: Duration = Duration::from_millis(500);
/// `doctor`: how long a site has to tell the time, on each of two ports.
pub const SITE_DATE: Duration = Duration::from_secs(1);
/// `doctor`: how long a time server has to answer.
pub const NTP_WAIT: Duration = Duration::from_secs(1);
/// `doctor`: how often a time server is asked: packets get lost.
pub const NTP_ASKED: usize = 3;
/// `doctor`: a configuration file of this age is a warning: Telegram changes it often.
pub const OLD_CONFIG: Duration = Duration::from_secs(7 * 86_400);
/// `doctor`: a clock may differ by so many seconds; what is measured over a network is off by one or two.
pub const CLOCK_WORN: u64 = 2;
/// `doctor`: by more seconds nothing works: middle proxies refuse it.
pub const CLOCK_OFF: u64 = MAX_CLOCK_SKEW as u64;
/// `ping`: longest first flight that is read, and longest answer, which has about 100 bytes, bytes.
pub const PING_ANSWER: usize = 32 << 10;

// --- middle proxies --------------------------------------------------------------------------

/// Connect to a middle proxy. C: the same.
pub const BACKEND_CONNECT: Duration = Duration::from_secs(3);
/// Nonce and handshake with a middle proxy, after the connect. C: the same.
pub const BACKEND_HANDSHAKE: Duration = Duration::from_secs(3);
/// SO_SNDTIMEO of middle-proxy connections.
pub const BACKEND_SEND_STEP: Duration = Duration::from_secs(10);
/// After so many steps in a row without progress the connection is given up: after 30 s.
pub const BACKEND_SEND_STEPS: u32 = 3;
/// TCP_USER_TIMEOUT of middle-proxy connections; see that of client sockets.
pub const BACKEND_USER_TIMEOUT: Duration = Duration::from_secs(240);
/// Keep-alive of middle-proxy connections: seconds of silence, and between probes. C: the same.
pub const BACKEND_KEEPALIVE: u32 = 40;
/// Keep-alive of middle-proxy connections: unanswered probes. C: the same.
pub const BACKEND_KEEPALIVE_PROBES: u32 = 5;
/// Added to the ping interval for the reader's deadline.
pub const BACKEND_PING_GRACE: Duration = Duration::from_secs(20);
/// Default interval of pings. C: never pings.
pub const PING_INTERVAL: Duration = Duration::from_secs(60);
/// Less that -T gives is taken as this: more pings would only cost both sides.
pub const MIN_PING_INTERVAL: Duration = Duration::from_secs(1);
/// More that -T gives is taken as this.
pub const MAX_PING_INTERVAL: Duration = Duration::from_secs(3600);
/// First wait after a failed round of dialling (protocol.md 6.5). C: the same.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
/// The back-off grows until it reaches this. C: the same.
pub const BACKOFF_MAX: Duration = Duration::from_secs(20);
/// A connection that lived this long, or carried an answer, is redialled at once when it is lost.
pub const BACKOFF_FORGIVEN: Duration = Duration::from_secs(10);
/// Longest frame from a middle proxy, bytes. C: no limit.
pub const MAX_FRAME: usize = 1 << 24;
/// Clock difference to a middle proxy that is accepted, seconds (protocol.md 6.2). C: the same.
pub const MAX_CLOCK_SKEW: u32 = 30;
/// Slots per set of targets where -M gives 0.
pub const DEFAULT_SLOTS: usize = 2;
/// Most slots per set of targets; C opens 4 to 8 connections a target.
pub const MAX_SLOTS: usize = 16;
/// Most that -M may give; above [`MAX_SLOTS`] it is taken as that. C: the same.
pub const MAX_SLOTS_ASKED: u32 = 256;
/// A further slot of a set is dialled for the next client when each ready one has this many: few
/// share what a slow or lost connection does to them.
pub const CLIENTS_PER_SLOT: usize = 8;
/// A client that waits so long for the first connection of its set has a further slot dialled.
pub const SLOT_PATIENCE: Duration = Duration::from_millis(300);
/// Messages that one connection's channel holds.
pub const UPLINK_MESSAGES: usize = 256;
/// Bytes that one connection's channel holds before clients' readers wait (capacity of buffers).
/// One more message may always enter.
pub const UPLINK_BYTES: usize = 1 << 20;
/// Messages that one write to a middle proxy takes.
pub const WRITE_BATCH: usize = 64;
/// Bytes after which a batch for one write is not made longer.
pub const WRITE_BATCH_BYTES: usize = 256 << 10;
/// Read buffer of a middle proxy's connection, bytes: two answers of 128 KiB with what is around them. It
/// grows with a frame and shrinks back.
pub const FRAME_BUFFER: usize = 264 << 10;
/// Bytes of a frame that has begun which are moved to the front of that buffer; a longer part stays, and
/// a read takes no more than the rest of the frame.
pub const FRAME_MOVED: usize = 16 << 10;

// --- direct mode -----------------------------------------------------------------------------

/// The data centre of clients that name none, or an unknown one. The C proxy's file says it.
pub const DEFAULT_DC: u16 = 2;
/// How long it is taken for known whether there is a route for IPv6, seconds: asking costs a client 20 µs.
pub const IPV6_KNOWN: u32 = 5;
/// All addresses of a data centre together, to connect. The C proxy has no direct mode.
pub const DC_CONNECT: Duration = Duration::from_secs(5);
/// After one side has ended its half, the other half ends after this long without progress.
pub const HALF_OPEN: Duration = Duration::from_secs(60);
/// A client of a data centre goes direct when none of its middle proxies was reachable for this long.
pub const FALLBACK_AFTER: Duration = Duration::from_secs(30);
/// Bytes that one step of a busy relay moves at most.
pub const RELAY_STEP: usize = 256 << 10;
/// The same where bytes to the client are copied: four full records.
pub const RELAY_COPY: usize = 64 << 10;
/// A busy relay whose step moved less than this takes its large buffer or pipe to be idle.
pub const RELAY_BUSY: usize = 8 << 10;
/// A relay that has been silent for this long gives back its large buffer or pipe.
pub const RELAY_LINGER: Duration = Duration::from_secs(1);
/// Pipes that are kept for busy relays.
pub const PIPES_KEPT: usize = 128;

// --- configuration ---------------------------------------------------------------------------

/// Longest file, bytes (protocol.md 8.1). C: the same.
pub const MAX_CONFIG_FILE: usize = 16 << 20;
/// Most proxy lines (protocol.md 8.1; 24 today). C: the same.
pub const MAX_TARGETS: usize = 4096;
/// Most clusters (protocol.md 8.1; 12 today). C: the same.
pub const MAX_CLUSTERS: usize = 1024;
/// Longest host, characters, brackets included (protocol.md 8.1). C: the same.
pub const MAX_HOST: usize = 63;
/// Characters of the file that an error shows (protocol.md 8.2). C: the same.
pub const MAX_NEAR: usize = 20;
/// What Telegram's file has, bytes. C: any length that fits.
pub const PROXY_SECRET_LEN: usize = 128;
/// Shortest proxy-secret file, bytes (protocol.md 8.5). C: the same.
pub const PROXY_SECRET_MIN: usize = 32;
/// Longest proxy-secret file, bytes (protocol.md 8.5). C: the same.
pub const PROXY_SECRET_MAX: usize = 256;
/// Client ports that -H may give. C: the same.
pub const MAX_PORTS: usize = 128;
/// Longest path of a unix socket, bytes: what the system's address holds, its end included.
pub const MAX_SOCKET_PATH: usize = 107;
/// The port for clients where a secret is made up and -H gives none: no privileges are needed for it.
pub const CLIENT_PORT: u16 = 8443;
/// The port in links where -H gives none: most proxies have it.
pub const LINK_PORT: u16 = 443;
/// Clients that may wait to be accepted, where -b gives nothing. C: the same.
pub const BACKLOG: u32 = 8192;
/// TCP_WINDOW_CLAMP of client sockets without fake TLS, bytes, where -W gives nothing. C: the same.
pub const WINDOW_CLAMP: u32 = 131_072;
/// Most that flags which count something may give: C's int.
pub const MAX_COUNT: u32 = i32::MAX as u32;
/// Longest file of --config, bytes: a thousand secrets with their settings.
pub const MAX_SETTINGS_FILE: usize = 1 << 20;
/// Networks in a file of --ip-allowlist or --ip-blocklist: 1.7 MB of memory.
pub const MAX_LIST_NETWORKS: usize = 100_000;
/// Longest such file, bytes.
pub const MAX_LIST_FILE: usize = 16 << 20;
/// Rules that --nat-info may give. C: the same.
pub const MAX_NAT_RULES: usize = 16;

// --- statistics ------------------------------------------------------------------------------

/// Longest head of an HTTP request, bytes (protocol.md 10.1). C: the same.
pub const MAX_HTTP_HEAD: usize = 16 << 10;
/// Connections for statistics that are served at a time on each address, a thread each; further ones wait.
/// C: in the one event loop.
pub const STATS_CONNECTIONS: usize = 4;
/// The same for a connection of somebody who may not ask.
pub const STATS_REFUSAL: Duration = Duration::from_secs(1);
/// From accept to the end of a connection for statistics, however much it is kept alive. C: none.
pub const STATS_LIFETIME: Duration = Duration::from_secs(10);
/// Connections for statistics that may wait to be accepted.
pub const STATS_BACKLOG: i32 = 16;
/// Networks that --stats-allow-net may give, and --proxy-protocol-from.
pub const MAX_STATS_NETS: usize = 64;
/// Upper ends of the histograms of connect and handshake times, milliseconds: from the same city to
/// what a deadline allows.
pub const TIME_BUCKETS: [u16; 10] = [5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000];

// --- the process -----------------------------------------------------------------------------

/// Stack of every thread, bytes. Nothing large lives on a stack.
pub const THREAD_STACK: usize = 64 << 10;
/// Clients at a time where -C gives nothing. C: the same.
pub const MAX_CLIENTS: u64 = 65_536;
/// Descriptors and threads that the server needs besides its clients and backend slots.
pub const RESERVE: u64 = 64;
/// Processes and mappings that are left to the rest of the system and to the server itself.
pub const SYSTEM_RESERVE: u64 = 2_000;
/// Memory of an idle client's thread, kernel included: its stacks, structures, a socket's both ends.
pub const THREAD_MEMORY: u64 = 48 << 10;
/// Address space of a thread: its stack and guard page, and what it allocates.
pub const THREAD_SPACE: u64 = 96 << 10;
/// Middle mode: one client in this many may need a second thread at the same time, for its writer or
/// because it goes direct.
pub const WRITER_SHARE: u64 = 8;
/// How long a client thread that has finished waits for the next client.
pub const THREAD_LINGER: Duration = Duration::from_secs(10);
/// Budget of all buffers where --msg-buffers-size gives none, bytes: C's default is 256 MiB.
pub const BUFFER_BUDGET: u64 = 256 << 20;
/// Sizes of pooled buffers, bytes: pings, small packets, the longest ClientHello, a TCP window, file
/// parts, the longest packet.
pub const BUFFER_CLASSES: [usize; 7] = [
    1 << 9,
    1 << 11,
    (1 << 14) + (1 << 9),
    1 << 16,
    1 << 18,
    (1 << 19) + (1 << 12),
    (1 << 20) + (1 << 12),
];
/// The part of the budget that clients' packets may take which are longer than `FIRST_BUFFER`. C: none.
pub const UPLOADS_SHARE: usize = 2;
/// Most that is taken for a client's packet before its bytes have come, and what needs no reservation.
pub const FIRST_BUFFER: usize = 64 << 10;
/// How long a reader waits for a reservation until it has those closed whose packets come too slowly.
pub const UPLOAD_PATIENCE: Duration = Duration::from_secs(5);
/// How often it looks meanwhile.
pub const UPLOAD_LOOK: Duration = Duration::from_secs(1);
/// Bytes a second of a packet that has a reservation, below which it comes too slowly.
pub const UPLOAD_RATE: u64 = 8 << 10;
/// The part of the budget that frames from middle proxies may take, together with what waits for these;
/// the connection whose frame would take more is dropped. C: no limit.
pub const BACKENDS_SHARE: usize = 4;
/// Buffer of a middle proxy's frame that is always taken, bytes: twice the longest packet.
pub const USUAL_FRAME: usize = 2 << 20;
/// The part of the budget that connections may hold that have proven no secret. C: no pool of theirs.
pub const STRANGERS_SHARE: usize = 16;
/// And at least so many bytes: sixteen of the longest ClientHellos.
pub const MIN_STRANGERS_SHARE: usize = 264 << 10;
/// The part of the budget that each size class may keep free for the next packets; what is not used
/// goes back to the system within minutes.
pub const POOL_SHARE: usize = 16;
/// Log lines that may wait to be written; further ones are dropped and counted. C: writing blocks.
pub const LOG_LINES: usize = 512;
/// How long the end of the process waits for the log to be read.
pub const LOG_FLUSH: Duration = Duration::from_millis(500);
/// What clients of a secret with a rate may move at once after a pause: as much as in this time. C: none.
pub const RATE_BURST: Duration = Duration::from_millis(250);
/// Steps a second in which all clients of such a secret together move bytes: smooth enough for a video call.
pub const RATE_STEPS: u64 = 8;
/// And the least bytes a client moves at once: a record or packet head with something behind it.
pub const RATE_LEAST_STEP: usize = 512;
/// Longest wait of a client's thread for its secret's rate: it must see the end of its connection.
pub const RATE_WAIT: Duration = Duration::from_secs(10);
/// What is written within this time is not taken for a complete file.
pub const RELOAD_SETTLE: Duration = Duration::from_secs(1);
/// Seconds that clients stay whose secret or middle proxies a reload has removed, where --drain gives none.
pub const DRAIN: u32 = 300;
/// When a shorter drain ends, clients that came before it may still be between their handshake and the list of
/// those that it ends: they are looked for once more, so long after the reload.
pub const LATECOMERS: Duration = Duration::from_secs(60);
/// Most that --drain may give: a day.
pub const MAX_DRAIN: u32 = 86_400;
/// Telegram's files are fetched daily; from this age on, that hardly works any more.
pub const FILES_OLD: Duration = Duration::from_secs(3 * 86_400);
/// How often that is warned of.
pub const DAY: Duration = Duration::from_secs(86_400);
/// How often refusals are summed up in the log while there are any.
pub const SUMMARY_INTERVAL: Duration = Duration::from_secs(60);
