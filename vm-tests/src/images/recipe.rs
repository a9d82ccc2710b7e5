//! What the images are made of.

/// An image, before it is built. Its `Debug` text is what its key in the cache is made from.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The repository.
    pub name: &'static str,
    /// The tag.
    pub tag: &'static str,
    /// From the lowest to the highest.
    pub layers: Vec<Layer>,
    /// What the command is handed to; empty where it runs by itself.
    pub entrypoint: &'static [&'static str],
    /// The program and its arguments.
    pub command: &'static [&'static str],
    /// The signal that asks it to end.
    pub stop_signal: &'static str,
    /// The TCP port it listens on.
    pub port: u16,
}

/// One layer: packages of Debian trixie with what they depend on, then files and symbolic links.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    /// Packages; what an earlier layer holds is not repeated.
    pub packages: &'static [&'static str],
    /// Path, mode and content.
    pub files: Vec<(&'static str, u32, String)>,
    /// Path and target.
    pub links: Vec<(&'static str, &'static str)>,
    /// Empty directories.
    pub directories: &'static [&'static str],
}

/// The images of the demo and the tests: `nginx` and `redis` share their lowest layer; `test` is one static program.
pub fn recipes() -> Vec<Recipe> {
    vec![nginx("1", "first"), nginx("2", "second"), redis(), test()]
}

/// All images of the tests: those of [`recipes`], and one that only a test of data needs.
pub fn test_recipes() -> Vec<Recipe> {
    let mut all = recipes();
    all.push(postgres());
    all
}

/// nginx with a page at `/` that names its edition, and at `/cache` a counter that it keeps in redis, found by the name `cache`.
fn nginx(tag: &'static str, edition: &str) -> Recipe {
    let page = format!(
        "<!doctype html>\n<title>Bennu</title>\n<p>Served by a signed manifest, {edition} edition.\n"
    );
    let packages = Layer { packages: &["nginx", "libnginx-mod-http-lua"], ..Layer::default() };
    let files = Layer {
        files: vec![
            ("etc/nginx/nginx.conf", 0o644, NGINX.to_owned()),
            ("usr/local/bin/with-resolver", 0o755, WITH_RESOLVER.to_owned()),
            ("srv/www/index.html", 0o644, page),
        ],
        ..Layer::default()
    };
    Recipe {
        name: "nginx",
        tag,
        layers: vec![base(), packages, files],
        entrypoint: &["/usr/local/bin/with-resolver"],
        command: &["nginx", "-g", "daemon off;"],
        stop_signal: "SIGQUIT",
        port: 80,
    }
}

/// redis, which keeps its data in `/data`.
fn redis() -> Recipe {
    let packages = Layer { packages: &["redis-server"], ..Layer::default() };
    let files = Layer {
        files: vec![("etc/redis/redis.conf", 0o644, REDIS.to_owned())],
        directories: &["data"],
        ..Layer::default()
    };
    Recipe {
        name: "redis",
        tag: "1",
        layers: vec![base(), packages, files],
        entrypoint: &[],
        command: &["redis-server", "/etc/redis/redis.conf"],
        stop_signal: "SIGTERM",
        port: 6379,
    }
}

/// PostgreSQL, which keeps its data in `/var/lib/postgresql` with checksums, and is reached by its socket in `/tmp`.
fn postgres() -> Recipe {
    let packages = Layer { packages: &["postgresql-17"], ..Layer::default() };
    let files = Layer {
        files: vec![
            (
                "etc/passwd",
                0o644,
                "root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n".to_owned(),
            ),
            ("etc/group", 0o644, "root:x:0:\npostgres:x:999:\n".to_owned()),
            ("usr/local/bin/serve", 0o755, POSTGRES.to_owned()),
        ],
        directories: &["tmp"],
        ..Layer::default()
    };
    Recipe {
        name: "postgres",
        tag: "17",
        layers: vec![base(), packages, files],
        entrypoint: &[],
        command: &["serve"],
        // A fast shutdown (PostgreSQL 17, "Shutting Down the Server").
        stop_signal: "SIGINT",
        port: 5432,
    }
}

/// busybox, which sleeps unless the manifest gives it another command.
fn test() -> Recipe {
    let files = Layer {
        links: [("bin", "usr/bin"), ("sbin", "usr/bin")]
            .into_iter()
            .chain(APPLETS.iter().map(|path| (*path, "busybox")))
            .collect(),
        directories: &["data", "tmp", "var", "run", "srv"],
        ..Layer::default()
    };
    let program = Layer { packages: &["busybox-static"], ..Layer::default() };
    Recipe {
        name: "test",
        tag: "1",
        layers: vec![program, files, Layer { files: accounts(), ..Layer::default() }],
        entrypoint: &[],
        command: &["sleep", "1000000"],
        stop_signal: "SIGKILL",
        port: 8080,
    }
}

/// The C library, a shell and the plain programs, shared by `nginx` and `redis`.
fn base() -> Layer {
    Layer { packages: &["base-files", "coreutils", "dash"], files: accounts(), ..Layer::default() }
}

fn accounts() -> Vec<(&'static str, u32, String)> {
    let passwd = "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/srv/www:/bin/false\n";
    let group = "root:x:0:\nwww-data:x:33:\n";
    vec![
        ("etc/passwd", 0o644, passwd.to_owned()),
        ("etc/group", 0o644, group.to_owned()),
        ("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
    ]
}

const APPLETS: &[&str] = &[
    "usr/bin/cat",
    "usr/bin/chown",
    "usr/bin/date",
    "usr/bin/dd",
    "usr/bin/df",
    "usr/bin/echo",
    "usr/bin/env",
    "usr/bin/false",
    "usr/bin/grep",
    "usr/bin/head",
    "usr/bin/hostname",
    "usr/bin/httpd",
    "usr/bin/id",
    "usr/bin/ip",
    "usr/bin/kill",
    "usr/bin/ls",
    "usr/bin/mkdir",
    "usr/bin/mount",
    "usr/bin/nc",
    "usr/bin/nslookup",
    "usr/bin/ps",
    "usr/bin/rm",
    "usr/bin/sh",
    "usr/bin/sleep",
    "usr/bin/stat",
    "usr/bin/sync",
    "usr/bin/touch",
    "usr/bin/true",
    "usr/bin/wc",
    "usr/bin/wget",
];

/// Everything nginx writes is below `/run`; the root stays read-only. Names are looked up anew, because a
/// container that is replaced comes back at another address.
const NGINX: &str = r#"load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr notice;
events { worker_connections 256; }
http {
    access_log off;
    default_type text/html;
    include /run/resolver.conf;
    client_body_temp_path /run/body;
    proxy_temp_path /run/proxy;
    fastcgi_temp_path /run/fastcgi;
    uwsgi_temp_path /run/uwsgi;
    scgi_temp_path /run/scgi;
    server {
        listen 80;
        root /srv/www;
        location = /cache {
            default_type text/plain;
            content_by_lua_block {
                local redis = ngx.socket.tcp()
                redis:settimeout(5000)
                local ok, err = redis:connect("cache", 6379)
                if not ok then
                    ngx.status = 502
                    ngx.say("cannot reach cache: ", err)
                    return
                end
                redis:send("INCR hits\r\n")
                local answer = redis:receive("*l")
                redis:close()
                local hits = answer and answer:match("^:(%d+)$")
                if not hits then
                    ngx.status = 502
                    ngx.say("cache answered: ", answer or "nothing")
                    return
                end
                ngx.log(ngx.NOTICE, "hit ", hits)
                ngx.say("hits: ", hits)
            }
        }
    }
}
"#;

/// nginx reads no `/etc/resolv.conf`, so its name server is written down before it starts.
const WITH_RESOLVER: &str = r#"#!/bin/sh
set -eu
: >/run/resolver.conf
while read -r key value rest; do
    if [ "$key" = nameserver ]; then
        echo "resolver $value ipv6=off valid=2s;" >/run/resolver.conf
        break
    fi
done </etc/resolv.conf
exec "$@"
"#;

const REDIS: &str = r#"bind * -::*
protected-mode no
port 6379
daemonize no
dir /data
save ""
appendonly yes
appendfsync always
"#;

/// Makes the database where there is none yet; a power cut meanwhile leaves none.
const POSTGRES: &str = r#"#!/bin/sh
set -eu
PATH=/usr/lib/postgresql/17/bin:$PATH
data=/var/lib/postgresql/data
if [ ! -d "$data" ]; then
    rm -rf "$data.new"
    initdb --pgdata="$data.new" --data-checksums --auth=trust --username=postgres --locale=C --encoding=UTF8
    mv "$data.new" "$data"
fi
exec postgres -D "$data" -c listen_addresses= -c unix_socket_directories=/tmp -c jit=off
"#;
