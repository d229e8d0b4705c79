//! A PostgreSQL server of one's own: its data in the build's directory for tests, its socket beside it, fsync on.
#![allow(dead_code, reason = "each test uses its part")]

use postgres::{Client, Config, NoTls};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

const TMP: &str = env!("CARGO_TARGET_TMPDIR");
/// Whom the server runs as where it must not be root.
const USER: &str = "postgres";

pub struct Server {
    bin: PathBuf,
    dir: PathBuf,
    settings: Vec<String>,
    child: Option<Child>,
}

/// Where the server's programs are; none if it is not installed, which is an error if `SEAWALL_POSTGRES` says `required`.
fn bin() -> Option<PathBuf> {
    let mut places: Vec<PathBuf> =
        std::env::var_os("SEAWALL_POSTGRES_BIN").into_iter().map(PathBuf::from).collect();
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|dir| dir.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.sort();
    places.extend(versions.into_iter().rev());
    places.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    let found = places.into_iter().find(|dir| dir.join("initdb").exists() && dir.join("postgres").exists());
    if found.is_none() {
        assert!(
            std::env::var("SEAWALL_POSTGRES").as_deref() != Ok("required"),
            "PostgreSQL is required, and not installed"
        );
        println!("PostgreSQL is not installed: nothing is tested");
    }
    found
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    String::from_utf8_lossy(&id.stdout).trim() == "0"
}

/// A command as the server's user, ended with the thread that has started it.
fn as_user(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if is_root() {
        command.args(["--reuid", USER, "--regid", USER, "--init-groups"]);
    }
    command.arg("--").arg(program).current_dir("/").stdin(Stdio::null());
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The directory for tests, if the server's user can get there.
fn base() -> PathBuf {
    let reached = as_user("test").args(["-x", TMP]).status().unwrap().success();
    if reached { PathBuf::from(TMP) } else { std::env::temp_dir() }
}

fn fresh(dir: &Path) {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir).unwrap();
    if is_root() {
        run(Command::new("chown").arg(USER).arg(dir));
    }
}

/// An empty cluster, made once a run: to be copied.
fn template(bin: &Path) -> &'static Path {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(|| {
        let dir = base().join(format!("postgres-template-{}", std::process::id()));
        fresh(&dir);
        let data = dir.join("data");
        let mut initdb = as_user(bin.join("initdb"));
        run(initdb.args(["-U", USER, "-A", "trust", "--no-sync", "-E", "UTF8", "-D"]).arg(&data));
        data
    })
}

impl Server {
    /// None if PostgreSQL is not there.
    pub fn start(name: &str) -> Option<Server> {
        Server::start_with(name, &[])
    }

    /// With settings, as `work_mem=4MB`.
    pub fn start_with(name: &str, settings: &[&str]) -> Option<Server> {
        let bin = bin()?;
        let dir = base().join(format!("postgres-{name}"));
        fresh(&dir);
        run(as_user("cp").arg("-a").arg(template(&bin)).arg(dir.join("data")));
        let settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        let mut server = Server { bin, dir, settings, child: None };
        server.run();
        let mut admin = server.admin("postgres");
        for statement in ["CREATE ROLE app LOGIN", "CREATE DATABASE app OWNER app"] {
            admin.batch_execute(statement).unwrap();
        }
        Some(server)
    }

    /// A standby of this one, which streams from it under this name; with the same settings.
    pub fn standby(&self, name: &str) -> Server {
        let dir = base().join(format!("postgres-{name}"));
        fresh(&dir);
        let mut copy = as_user(self.bin.join("pg_basebackup"));
        copy.arg("-h").arg(self.socket()).args(["-U", USER, "-R", "-X", "stream", "-c", "fast", "--no-sync"]);
        run(copy.arg("-D").arg(dir.join("data")));
        let primary = self.socket().display();
        let mut settings = self.settings.clone();
        settings.push(format!("primary_conninfo=host={primary} user={USER} application_name={name}"));
        let mut standby = Server { bin: self.bin.clone(), dir, settings, child: None };
        standby.run();
        standby
    }

    /// Starts it, as it was configured, and waits until it answers.
    pub fn run(&mut self) {
        let begin = Instant::now();
        loop {
            if let Some(child) = &mut self.child
                && child.try_wait().unwrap().is_none()
            {
                if Config::connect(&self.config_of(USER, "postgres"), NoTls).is_ok() {
                    return;
                }
            } else {
                // Also if it has ended at once: processes of the one before may still be there.
                self.spawn();
            }
            assert!(begin.elapsed() < Duration::from_secs(120), "it does not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts it, and does not wait.
    pub fn spawn(&mut self) {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.join("log")).unwrap();
        let mut command = as_user(self.bin.join("postgres"));
        command.arg("-D").arg(self.dir.join("data")).arg("-k").arg(self.socket());
        let fixed = ["listen_addresses=", "max_prepared_transactions=100", "max_connections=120", "fsync=on"];
        let quiet = ["shared_buffers=32MB", "logging_collector=off", "autovacuum=off", "max_wal_size=256MB"];
        for setting in fixed.iter().chain(&quiet).copied().chain(self.settings.iter().map(String::as_str)) {
            command.arg("-c").arg(setting);
        }
        // It ends with the thread that has started it, which ends with the test's process.
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            sender.send(command.stdout(Stdio::null()).stderr(log).spawn().unwrap()).unwrap();
            loop {
                std::thread::park();
            }
        });
        self.child = Some(receiver.recv().unwrap());
    }

    /// In good order, and up again with other settings: fewer prepared transactions would not do for its recovery.
    pub fn restart_with(&mut self, settings: &[&str]) {
        self.settings = settings.iter().map(|&setting| setting.to_owned()).collect();
        signal("INT", &[self.pid()]);
        self.child.take().unwrap().wait().unwrap();
        self.run();
    }

    fn socket(&self) -> &Path {
        // A socket's name has room for 107 bytes.
        if self.dir.as_os_str().len() < 80 { &self.dir } else { Path::new("/tmp") }
    }

    /// The socket itself.
    pub fn socket_file(&self) -> PathBuf {
        self.socket().join(".s.PGSQL.5432")
    }

    /// The postmaster's process.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// The postmaster, without a warning.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// At once, and up again: `-m immediate`.
    pub fn restart(&mut self) {
        signal("QUIT", &[self.pid()]);
        self.child.take().unwrap().wait().unwrap();
        self.run();
    }

    /// As its superuser.
    pub fn admin(&self, database: &str) -> Client {
        let begin = Instant::now();
        loop {
            match self.config_of(USER, database).connect(NoTls) {
                Ok(client) => return client,
                Err(error) => assert!(begin.elapsed() < Duration::from_secs(60), "{error:?}: {}", self.log()),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn config_of(&self, user: &str, database: &str) -> Config {
        let mut config = Config::new();
        config.user(user).dbname(database).host_path(self.socket());
        config
    }

    /// As somebody without rights of his own, who owns a database.
    pub fn config(&self) -> Config {
        self.config_of("app", "app")
    }

    /// What is prepared, anywhere.
    pub fn prepared(&self) -> Vec<String> {
        let rows =
            self.admin("postgres").query("SELECT gid FROM pg_prepared_xacts ORDER BY gid", &[]).unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            signal("QUIT", &[child.id()]);
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The processes that a process has started.
pub fn children_of(pid: u32) -> Vec<u32> {
    let output = Command::new("ps").args(["-o", "pid=", "--ppid", &pid.to_string()]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// A signal by name. Processes that have ended meanwhile are no error.
pub fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(u32::to_string);
    let _ = Command::new("kill").arg(format!("-{name}")).args(pids).stderr(Stdio::null()).status();
}
