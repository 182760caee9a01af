// Judges commits by indigo's code, as its relay's strict mode does (cmd/relay/relay/verify.go), but for one thing: there a
// tree that does not lead back to prevData is only logged; here it counts, and so does its own check of a tree's form.
//
// Reads lines of JSON {payload, key, did, rev} (the #commit's payload in base64, the account's did:key and DID, the rev known before or nothing)
// and answers each with a line {stage, error}; both are empty where it accepts.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	comatproto "github.com/bluesky-social/indigo/api/atproto"
	"github.com/bluesky-social/indigo/atproto/atcrypto"
	"github.com/bluesky-social/indigo/atproto/repo"
	"github.com/bluesky-social/indigo/atproto/syntax"
)

type Question struct {
	Payload []byte `json:"payload"`
	Key     string `json:"key"`
	Did     string `json:"did"`
	Rev     string `json:"rev"`
}

type Answer struct {
	Stage string `json:"stage"`
	Error string `json:"error"`
}

func judge(question Question) (stage string, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			stage, err = "panic", fmt.Errorf("%v", panicked)
		}
	}()
	ctx := context.Background()
	var event comatproto.SyncSubscribeRepos_Commit
	if err := event.UnmarshalCBOR(bytes.NewReader(question.Payload)); err != nil {
		return "payload", err
	}
	if len(event.Blocks) > 2_000_000 || len(event.Ops) > 200 {
		return "size", fmt.Errorf("%d bytes, %d ops", len(event.Blocks), len(event.Ops))
	}
	commit, _, err := repo.LoadCommitFromCAR(ctx, bytes.NewReader(event.Blocks))
	if err != nil {
		return "car", err
	}
	if err := commit.VerifyStructure(); err != nil {
		return "commit", err
	}
	rev, err := syntax.ParseTID(commit.Rev)
	if err != nil {
		return "rev", err
	}
	if rev.Time().After(time.Now().Add(5 * time.Minute)) {
		return "rev", fmt.Errorf("in the future")
	}
	key, err := atcrypto.ParsePublicDIDKey(question.Key)
	if err != nil {
		return "key", err
	}
	if err := commit.VerifySignature(key); err != nil {
		return "signature", err
	}
	if event.Repo != question.Did {
		return "fields", fmt.Errorf("of another account")
	}
	if event.Repo != commit.DID || event.Rev != commit.Rev {
		return "fields", fmt.Errorf("the commit is of %s, rev %s", commit.DID, commit.Rev)
	}
	if event.TooBig || event.Rebase {
		return "flags", fmt.Errorf("deprecated flag")
	}
	if question.Rev == "" && event.PrevData == nil {
		return "", nil // The first commit is not inverted.
	}
	if event.PrevData == nil {
		return "prevData", fmt.Errorf("missing")
	}
	if question.Rev != "" && event.Rev <= question.Rev {
		return "rev", fmt.Errorf("%s is not after %s", event.Rev, question.Rev)
	}
	verified, err := repo.VerifyCommitMessage(ctx, &event)
	if err != nil {
		return "message", err
	}
	if err := verified.MST.Verify(); err != nil {
		return "tree", err
	}
	return "", nil
}

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(io.Discard, nil)))
	questions := json.NewDecoder(bufio.NewReaderSize(os.Stdin, 1<<20))
	out := bufio.NewWriter(os.Stdout)
	answers := json.NewEncoder(out)
	for {
		var question Question
		if err := questions.Decode(&question); err == io.EOF {
			return
		} else if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		var answer Answer
		if stage, err := judge(question); err != nil {
			answer = Answer{stage, err.Error()}
		}
		if err := answers.Encode(answer); err != nil {
			os.Exit(1)
		}
		if err := out.Flush(); err != nil {
			os.Exit(1)
		}
	}
}
