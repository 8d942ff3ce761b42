package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"sort"
	"strings"
)

func base64Of(data []byte) string       { return base64.StdEncoding.EncodeToString(data) }
func rawURLBase64Of(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }

// must ends the program when a step failed.
func must(step string, err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", step, err)
		os.Exit(1)
	}
}

// expect ends the program when two values differ.
func expect(step string, got, want interface{}) {
	if !reflect.DeepEqual(got, want) {
		must(step, fmt.Errorf("got %v, want %v", got, want))
	}
}

// refused ends the program unless an answer had this code.
func refused(step string, err error, code int) {
	var failure *Failure
	if !errors.As(err, &failure) || failure.Code != code || failure.HTTP != httpOf[code] {
		must(step, fmt.Errorf("got %v, want code %d", err, code))
	}
}

// hash is §3's.
func hash(versions []Version) string {
	rank := map[string]int{"Primary": 0, "Active": 1, "Inactive": 2}
	sorted := append([]Version(nil), versions...)
	sort.Slice(sorted, func(i, j int) bool {
		a, b := sorted[i], sorted[j]
		if rank[a.Status] != rank[b.Status] {
			return rank[a.Status] < rank[b.Status]
		}
		return a.ID < b.ID
	})
	buffer := make([]byte, 8*len(sorted))
	for i, version := range sorted {
		if version.Status != "Inactive" {
			binary.LittleEndian.PutUint64(buffer[8*i:], version.ID)
		}
	}
	digest := sha256.Sum256(buffer)
	return hex.EncodeToString(digest[:])
}

func ids(key *Key) []uint64 {
	all := []uint64{}
	for _, version := range key.Versions {
		all = append(all, version.ID)
	}
	return all
}

func token(value string) Handler { return func() string { return value } }

// site is whom the test may be.
type site struct {
	host       string
	generation Generation
	machine    tls.Certificate
	admin      string
	stranger   string
}

func (s *site) client(maxVersion uint16, certificates []tls.Certificate, tokens ...string) *Client {
	handlers := []Handler{}
	for _, t := range tokens {
		handlers = append(handlers, token(t))
	}
	return &Client{Host: s.host, Generation: s.generation, Handlers: handlers, HTTP: newHTTP(certificates, maxVersion)}
}

func (s *site) user() *Client { return s.client(0, nil, s.admin) }

func (s *site) asMachine(maxVersion uint16) *Client {
	// An empty token is skipped, a wrong one is answered with code 5, the third is the machine's.
	return s.client(maxVersion, []tls.Certificate{s.machine}, "", "0uwrong", "0tdev-machine")
}

const id = "go:k"

func main() {
	generation := flag.String("generation", "2025", "2025 or 2026")
	host := flag.String("host", "", "address of the server")
	certificate := flag.String("certificate", "", "the machine's certificate")
	key := flag.String("key", "", "its key")
	folder := flag.String("folder", "", "do something with this cache folder instead: register, unregister, get ID, or daemon")
	file := flag.String("file", "", "only get this key as the file client does, and print its primary value")
	flag.Parse()
	if *file != "" {
		printFromFile(*file)
		return
	}
	pair, err := tls.LoadX509KeyPair(*certificate, *key)
	must("loading the machine's certificate", err)
	s := &site{
		host:       *host,
		generation: Generation{Name: *generation, Strict: *generation == "2026"},
		machine:    pair,
		admin:      os.Getenv("KNOX_USER_AUTH"),
		stranger:   os.Getenv("KNOX_STRANGER_AUTH"),
	}
	if *folder != "" {
		s.shares(*folder, flag.Args())
		return
	}
	s.creates()
	s.reads()
	s.rotates()
	s.changesAccess()
	s.follows()
	s.isRefused()
	s.retries()
	s.deletes()
	fmt.Println("the client of", *generation, "is content")
}

func (s *site) creates() {
	user := s.user()
	empty, err := user.Keys(nil)
	must("listing an empty store", err)
	expect("an empty store", empty, []string{})
	_, err = user.Create(id, []byte("first"), []Access{{"Machine", "dev-machine", "Read"}})
	must("creating", err)
	_, err = user.Create(id, []byte("again"), nil)
	refused("creating it twice", err, 2)
	_, err = user.Create("a-b", []byte("x"), nil)
	refused("creating a bad id", err, 12)
	_, err = user.Create("go:other", nil, nil)
	refused("creating without data", err, 10)
	_, err = user.Create("go:other", []byte("other"), nil)
	must("creating another", err)
}

func (s *site) reads() {
	// TLS 1.2: the certificate goes out only if the list of authorities in the request is empty (§1).
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		key, err := s.asMachine(version).Get(id)
		must("reading as a machine", err)
		expect("the id", key.ID, id)
		expect("the ACL of a read", key.ACL, []Access{})
		expect("the value", string(primary(key).Data), "first")
		expect("the hash", key.Hash, hash(key.Versions))
		expect("members that only clients add", key.Path+key.Tink, "")
	}
}

func (s *site) rotates() {
	user := s.user()
	before, err := user.GetWithStatus(id, "Inactive")
	must("reading all versions", err)
	first := primary(before).ID
	second, err := user.Add(id, []byte("second"))
	must("adding a version", err)
	third, err := user.Add(id, []byte("third"))
	must("adding another", err)
	must("promoting", user.Update(id, second, "Primary"))
	must("deactivating", user.Update(id, first, "Inactive"))
	for status, want := range map[string][]uint64{"Primary": {second}, "Active": {second, third}, "Inactive": {first, second, third}} {
		key, err := user.GetWithStatus(id, status)
		must("reading "+status, err)
		expect("the versions of "+status, ids(key), want)
		all, err := user.GetWithStatus(id, "Inactive")
		must("reading all", err)
		expect("the hash of "+status, key.Hash, hash(all.Versions))
	}
	must("reactivating", user.Update(id, first, "Active"))
	key, err := user.Get(id)
	must("reading", err)
	expect("the versions in the order they were added", ids(key), []uint64{first, second, third})
	expect("the values", string(bytes.Join([][]byte{key.Versions[0].Data, key.Versions[1].Data, key.Versions[2].Data}, []byte(" "))), "first second third")
	refused("deactivating the primary", user.Update(id, second, "Inactive"), 11)
	refused("promoting an unknown version", user.Update(id, 1, "Primary"), 3)
}

func (s *site) changesAccess() {
	user := s.user()
	must("granting", user.PutAccess(id, Access{"UserGroup", "ops", "Write"}, Access{"MachinePrefix", "web", "Read"}))
	must("granting in the old form", user.PutAccessLegacy(id, Access{"Machine", "web+1", "Read"}))
	must("revoking", user.PutAccess(id, Access{"MachinePrefix", "web", "None"}))
	// Everyone who is authenticated may look whom to ask (§4.5).
	acl, err := s.client(0, nil, s.stranger).ACL(id)
	must("looking at the ACL", err)
	expect("the ACL", acl, []Access{{"Machine", "dev-machine", "Read"}, {"User", "alice", "Admin"}, {"UserGroup", "ops", "Write"}, {"Machine", "web+1", "Read"}})
	refused("granting to nobody", user.PutAccess(id, Access{"MachinePrefix", "", "Read"}), 13)
}

// follows runs a daemon until it has seen a rotation, while somebody else rotates.
func (s *site) follows() {
	user := s.user()
	daemon := &Daemon{client: s.asMachine(0), cached: map[string]*Key{}, asked: []string{id, "go:other", "go:none"}}
	stop, done := make(chan struct{}), make(chan error, 1)
	go daemon.Run(stop, done)
	now, err := user.GetWithStatus(id, "Primary")
	must("reading the primary", err)
	must("the first copy", daemon.WaitFor(id, primary(now).ID))
	fresh, err := user.Add(id, []byte("rotated"))
	must("adding for the rotation", err)
	must("promoting for the rotation", user.Update(id, fresh, "Primary"))
	must("the rotation", daemon.WaitFor(id, fresh))
	expect("the rotated value", string(primary(daemon.Cached(id)).Data), "rotated")
	close(stop)
	must("the daemon", <-done)
	expect("a key that it may not read", daemon.Cached("go:other") == nil, true)
	unchanged, err := s.asMachine(0).Keys(map[string]string{id: daemon.Cached(id).Hash})
	must("polling once more", err)
	expect("a poll without news", unchanged, []string{})
	existing, err := user.Keys(map[string]string{id: "NONE", "go:none": "NONE"})
	must("asking which ids exist", err)
	expect("ids that exist", existing, []string{id})
	everything, err := user.Keys(nil)
	must("listing", err)
	sort.Strings(everything)
	expect("the list", everything, []string{id, "go:other"})
}

func (s *site) isRefused() {
	_, err := s.client(0, nil, s.stranger).Get(id)
	if err == nil || !strings.HasPrefix(err.Error(), "Unsuccessful authorization.") {
		must("a stranger", fmt.Errorf("got %v", err))
	}
	_, err = s.asMachine(0).Add(id, []byte("x"))
	if err == nil || !strings.HasPrefix(err.Error(), "Unsuccessful authorization.") {
		must("a reader who writes", fmt.Errorf("got %v", err))
	}
	_, err = s.client(0, nil, "").Get(id)
	if err == nil || !strings.HasPrefix(err.Error(), "No authentication data given.") {
		must("nobody", fmt.Errorf("got %v", err))
	}
	// A certificate that nobody vouches for does not hinder a user's token (§1).
	_, err = s.client(0, []tls.Certificate{s.machine}, s.admin).Get(id)
	must("a user beside a machine's certificate", err)
	_, err = s.user().Get("go:none")
	refused("a key that is not there", err, 4)
}

// retries counts on a server with the reference's strictness, where a None entry is code 1.
func (s *site) retries() {
	user := s.user()
	_, err := user.Create("go:none", []byte("x"), []Access{{"User", "x", "None"}})
	refused("code 1", err, codeInternal)
	expect("attempts", user.Attempts, 3)
	user = s.user()
	_, err = user.Get("go:none")
	refused("code 4", err, 4)
	expect("attempts without retry", user.Attempts, 1)
}

func (s *site) deletes() {
	user := s.user()
	must("deleting", user.Delete(id))
	refused("deleting it again", user.Delete(id), 4)
	_, err := user.Create(id, []byte("new"), nil)
	must("creating it anew", err)
	key, err := user.GetWithStatus(id, "Inactive")
	must("reading it anew", err)
	expect("its versions", len(key.Versions), 1)
}
