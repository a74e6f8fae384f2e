// Loadgen is the load of a bench: SMTP sessions that send one message after the other, one command, one reply, as
// clients do (no pipelining). It is in Go and not in Python, since it runs on the cores of the server it measures and
// must cost little beside it.
//
// Closed loop: each session sends its next message when the last was answered, over a kept connection or, with
// -fresh, over a new one for each message. Open loop, with -rate: messages arrive at that rate whatever the server
// does, wait for a free session, and the time from arrival to the final 250 is taken (so that a server that stalls
// cannot hide it by slowing the load, "coordinated omission").
//
// It connects and logs in (password in BENCH_PASSWORD), only then starts the clock, and says one JSON object:
// start and end on the monotonic clock that Python's time.monotonic reads, accepted, and times to 250 in
// milliseconds; or {"error": …} with the reply that was not expected.
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

type options struct {
	port, sessions, messages, size  int
	from, to, authority, name, user string
	fresh                           bool
	rate                            float64
	password                        string
	config                          *tls.Config
	before, after                   []byte
}

type report struct {
	Start    float64            `json:"start"`
	End      float64            `json:"end"`
	Accepted int64              `json:"accepted"`
	Millis   map[string]float64 `json:"millis"`
}

// session is one SMTP connection, signed in.
type session struct {
	connection net.Conn
	reader     *bufio.Reader
	buffer     []byte
}

func monotonic() float64 {
	var now syscall.Timespec
	const clockMonotonic = 1
	syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0)
	return float64(now.Sec) + float64(now.Nsec)/1e9
}

func (s *session) expect(code string) error {
	for {
		line, err := s.reader.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("the connection ended: %w", err)
		}
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		if !bytes.HasPrefix(line, []byte(code)) {
			return fmt.Errorf("instead of %s: %s", code, bytes.TrimSpace(line))
		}
		return nil
	}
}

func (s *session) command(octets []byte, code string) error {
	if _, err := s.connection.Write(octets); err != nil {
		return err
	}
	return s.expect(code)
}

func connect(o *options) (*session, error) {
	raw, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", o.port), 30*time.Second)
	if err != nil {
		return nil, err
	}
	connection := raw
	if o.config != nil {
		connection = tls.Client(raw, o.config)
	}
	connection.SetDeadline(time.Now().Add(15 * time.Minute))
	s := &session{connection: connection, reader: bufio.NewReaderSize(connection, 4096)}
	if err := s.expect("220"); err != nil {
		return nil, err
	}
	if err := s.command([]byte("EHLO bench.example\r\n"), "250"); err != nil {
		return nil, err
	}
	if o.user != "" {
		secret := base64.StdEncoding.EncodeToString([]byte("\x00" + o.user + "\x00" + o.password))
		if err := s.command([]byte("AUTH PLAIN "+secret+"\r\n"), "235"); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *session) quit() {
	s.connection.Write([]byte("QUIT\r\n"))
	s.connection.Close()
}

func (s *session) send(o *options, number int64) error {
	if err := s.command([]byte("MAIL FROM:<"+o.from+">\r\n"), "250"); err != nil {
		return err
	}
	if err := s.command([]byte("RCPT TO:<"+o.to+">\r\n"), "250"); err != nil {
		return err
	}
	if err := s.command([]byte("DATA\r\n"), "354"); err != nil {
		return err
	}
	s.buffer = append(s.buffer[:0], o.before...)
	s.buffer = fmt.Appendf(s.buffer, "%d", number)
	if len(o.after) > 1<<20 { // not copied for each session
		if _, err := s.connection.Write(s.buffer); err != nil {
			return err
		}
		return s.command(o.after, "250")
	}
	s.buffer = append(s.buffer, o.after...)
	return s.command(s.buffer, "250")
}

// content gives what comes before and after a message's number; size octets in all, but for the final dot.
func content(o *options) (before, after []byte) {
	before = []byte("X-Bench: ")
	header := fmt.Sprintf("\r\nMessage-ID: <bench@%s>\r\nFrom: Bench <%s>\r\nTo: <%s>\r\n"+
		"Subject: A message of ordinary size\r\nDate: %s\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: text/plain; charset=us-ascii\r\n\r\n",
		o.from, o.from, o.to, time.Now().Format("Mon, 02 Jan 2006 15:04:05 -0700"))
	line := "The quick brown fox jumps over the lazy dog, and then it rests a while.\r\n"
	var text bytes.Buffer
	text.WriteString(header)
	missing := o.size - len(before) - len(header) - 6
	for ; missing >= len(line); missing -= len(line) {
		text.WriteString(line)
	}
	for ; missing > 2; missing-- {
		text.WriteByte('x')
	}
	text.WriteString("\r\n.\r\n")
	return before, text.Bytes()
}

func run(o *options) (*report, error) {
	sessions := make([]*session, o.sessions)
	for i := range sessions {
		if o.fresh {
			continue
		}
		s, err := connect(o)
		if err != nil {
			return nil, err
		}
		sessions[i] = s
	}
	var (
		next     atomic.Int64
		accepted atomic.Int64
		failed   atomic.Value
		group    sync.WaitGroup
		lock     sync.Mutex
		times    []float64
	)
	begun, start := time.Now(), monotonic()
	for _, kept := range sessions {
		group.Add(1)
		go func(s *session) {
			defer group.Done()
			own := make([]float64, 0, o.messages/o.sessions+1)
			for failed.Load() == nil {
				number := next.Add(1) - 1
				if number >= int64(o.messages) {
					break
				}
				since := time.Now()
				if o.rate > 0 {
					since = begun.Add(time.Duration(float64(number) / o.rate * float64(time.Second)))
					time.Sleep(time.Until(since))
				}
				var err error
				if o.fresh {
					s, err = connect(o)
				}
				if err == nil {
					err = s.send(o, number)
				}
				if err != nil {
					failed.CompareAndSwap(nil, err)
					break
				}
				own = append(own, float64(time.Since(since).Microseconds())/1000)
				accepted.Add(1)
				if o.fresh {
					s.quit()
				}
			}
			lock.Lock()
			times = append(times, own...)
			lock.Unlock()
		}(kept)
	}
	group.Wait()
	end := monotonic()
	if err, ok := failed.Load().(error); ok {
		return nil, err
	}
	for _, s := range sessions {
		if s != nil {
			s.quit()
		}
	}
	sort.Float64s(times)
	at := func(share float64) float64 { return times[min(len(times)-1, int(share*float64(len(times))))] }
	millis := map[string]float64{"p50": at(0.50), "p90": at(0.90), "p99": at(0.99), "max": times[len(times)-1]}
	return &report{start, end, accepted.Load(), millis}, nil
}

func main() {
	o := &options{password: os.Getenv("BENCH_PASSWORD")}
	flag.IntVar(&o.port, "port", 0, "on 127.0.0.1")
	flag.IntVar(&o.sessions, "sessions", 1, "connections at a time")
	flag.IntVar(&o.messages, "messages", 1, "in all")
	flag.IntVar(&o.size, "size", 5120, "octets of a message")
	flag.StringVar(&o.from, "from", "", "sender")
	flag.StringVar(&o.to, "to", "", "recipient")
	flag.StringVar(&o.authority, "tls", "", "TLS from the first octet: the file of the authority that issued the certificate")
	flag.StringVar(&o.name, "name", "", "the name in the certificate")
	flag.StringVar(&o.user, "user", "", "user name for AUTH PLAIN")
	flag.BoolVar(&o.fresh, "fresh", false, "a new connection for each message")
	flag.Float64Var(&o.rate, "rate", 0, "messages a second that arrive whatever the server does; 0: as fast as it takes them")
	flag.Parse()
	if o.authority != "" {
		pem, err := os.ReadFile(o.authority)
		if err != nil {
			say(map[string]string{"error": err.Error()})
			os.Exit(1)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		// No session cache: a fresh connection pays for its whole handshake.
		o.config = &tls.Config{RootCAs: pool, ServerName: o.name}
	}
	o.before, o.after = content(o)
	result, err := run(o)
	if err != nil {
		say(map[string]string{"error": err.Error()})
		os.Exit(1)
	}
	say(result)
}

func say(words any) {
	json.NewEncoder(os.Stdout).Encode(words)
}
