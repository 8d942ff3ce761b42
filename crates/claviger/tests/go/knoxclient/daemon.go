package main

import (
	"fmt"
	"sync"
	"time"
)

// Daemon keeps registered keys up to date as Knox's daemon does (§12): one poll with what it has, then one read for each
// id that the poll names. What fails leaves the old copy in place.
type Daemon struct {
	client *Client
	mu     sync.Mutex
	cached map[string]*Key
	asked  []string
	err    error
}

// Update is one turn of the loop.
func (d *Daemon) Update() error {
	known := map[string]string{}
	for _, id := range d.asked {
		known[id] = ""
		if key := d.Cached(id); key != nil {
			known[id] = key.Hash
		}
	}
	changed, err := d.client.Keys(known)
	if err != nil {
		return err
	}
	for _, id := range changed {
		if _, registered := known[id]; !registered {
			return fmt.Errorf("the poll named %q, which was not asked for", id)
		}
		key, err := d.client.Get(id)
		if err != nil {
			continue
		}
		d.mu.Lock()
		d.cached[id] = key
		d.mu.Unlock()
	}
	return nil
}

// Cached is the copy of a key, or nil.
func (d *Daemon) Cached(id string) *Key {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cached[id]
}

// Run updates until it is stopped.
func (d *Daemon) Run(stop <-chan struct{}, done chan<- error) {
	for {
		if err := d.Update(); err != nil {
			done <- err
			return
		}
		select {
		case <-stop:
			done <- nil
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// WaitFor waits until the cached primary version of a key is `version`.
func (d *Daemon) WaitFor(id string, version uint64) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if key := d.Cached(id); key != nil && primary(key).ID == version {
			return nil
		}
	}
	return fmt.Errorf("the daemon never saw version %d of %s", version, id)
}

func primary(key *Key) Version {
	for _, version := range key.Versions {
		if version.Status == "Primary" {
			return version
		}
	}
	return Version{}
}
