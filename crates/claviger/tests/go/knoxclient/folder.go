package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Folder is a cache folder as Knox's client and daemon share it (§12).
type Folder struct {
	path string
}

func (f Folder) list() string         { return filepath.Join(f.path, ".registered") }
func (f Folder) key(id string) string { return filepath.Join(f.path, "v0", "keys", id) }

// locked does something with the list while it is locked: an exclusive lock that is asked for every 50 ms, for 10 s.
func (f Folder) locked(act func(list *os.File) error) error {
	list, err := os.OpenFile(f.list(), os.O_RDWR|os.O_CREATE, 0666)
	if err != nil {
		return err
	}
	defer list.Close()
	for begun := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := syscall.Flock(int(list.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			break
		}
		if time.Since(begun) > 10*time.Second {
			return fmt.Errorf("locking: %w", err)
		}
	}
	defer syscall.Flock(int(list.Fd()), syscall.LOCK_UN)
	return act(list)
}

func read(list *os.File) ([]string, error) {
	text, err := os.ReadFile(list.Name())
	return strings.Fields(string(text)), err
}

// rewrite empties the list and fills it, in place.
func rewrite(list *os.File, ids []string) error {
	if err := list.Truncate(0); err != nil {
		return err
	}
	var text bytes.Buffer
	for _, id := range ids {
		fmt.Fprintln(&text, id)
	}
	_, err := list.WriteAt(text.Bytes(), 0)
	return err
}

// Change adds an id to the list or takes it off.
func (f Folder) Change(id string, wanted bool) error {
	return f.locked(func(list *os.File) error {
		ids, err := read(list)
		if err != nil {
			return err
		}
		kept := []string{}
		for _, other := range ids {
			if other != id {
				kept = append(kept, other)
			}
		}
		if wanted {
			kept = append(kept, id)
		}
		return rewrite(list, kept)
	})
}

// Get waits for a key's file, as `register -g` does, and reads it as the file client does.
func (f Folder) Get(id string, limit time.Duration) (*Key, error) {
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(f.key(id))
		if err == nil {
			key := &Key{}
			if err := json.Unmarshal(text, key); err != nil {
				return nil, err
			}
			if key.ID != id || key.Hash == "" || key.ACL == nil || key.Versions == nil {
				return nil, errors.New("invalid key content for the cached key")
			}
			return key, nil
		}
		if time.Since(begun) > limit {
			return nil, fmt.Errorf("hit timeout: %w", err)
		}
	}
}

// Daemon is one turn of Knox's own daemon: what is not registered or unreadable is deleted, and what the poll names is read and replaced,
// all under the lock.
func (f Folder) Daemon(client *Client) (fetched []string, err error) {
	err = f.locked(func(list *os.File) error {
		ids, err := read(list)
		if err != nil {
			return err
		}
		known := map[string]string{}
		for _, id := range ids {
			known[id] = ""
		}
		files, err := os.ReadDir(filepath.Dir(f.key("x")))
		if err != nil {
			return err
		}
		for _, file := range files {
			key, err := f.Get(file.Name(), 0)
			if _, registered := known[file.Name()]; !registered || err != nil {
				if err := os.Remove(f.key(file.Name())); err != nil {
					return err
				}
				continue
			}
			known[file.Name()] = key.Hash
		}
		fetched, err = client.Keys(known)
		if err != nil {
			return err
		}
		for _, id := range fetched {
			key, err := client.Get(id)
			if err != nil {
				continue
			}
			text, err := json.Marshal(key)
			if err != nil {
				return err
			}
			temporary := filepath.Join(f.path, ".12345."+id+".tmp")
			if err := os.WriteFile(temporary, text, 0600); err != nil {
				return err
			}
			if err := os.Rename(temporary, f.key(id)); err != nil {
				return err
			}
			if err := os.Chmod(f.key(id), 0666); err != nil {
				return err
			}
		}
		return nil
	})
	return fetched, err
}

func (s *site) shares(path string, words []string) {
	folder := Folder{path}
	switch words[0] {
	case "register":
		must("registering", folder.Change(words[1], true))
		fallthrough
	case "get":
		key, err := folder.Get(words[1], 20*time.Second)
		must("reading the cached key", err)
		for _, version := range key.Versions {
			if version.Status == "Primary" {
				fmt.Print(string(version.Data))
			}
		}
	case "unregister":
		must("unregistering", folder.Change(words[1], false))
	case "daemon":
		fetched, err := folder.Daemon(s.asMachine(0))
		must("the daemon's turn", err)
		fmt.Print(strings.Join(fetched, " "))
	default:
		must("the command", errors.New(words[0]))
	}
}
