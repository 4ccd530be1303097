package proxytest

import (
	"crypto/md5" // SQS tells messages' MD5, and the SDK checks it
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// sqsMessage is a message that was not deleted yet.
type sqsMessage struct {
	receipt string // of the last time that it was received
	body    string
	visible time.Time // when it can be received (again)
}

// invisible is how long a message that was received is not received again.
const invisible = 30 * time.Second

// Send puts messages into the queue.
func (a *AWS) Send(bodies ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range bodies {
		a.queue = append(a.queue, sqsMessage{body: b})
	}
	close(a.arrived)
	a.arrived = make(chan struct{})
}

// Queued returns how many messages were not deleted yet.
func (a *AWS) Queued() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.queue)
}

func (a *AWS) receiveMessage(w http.ResponseWriter, r *http.Request, body []byte) {
	var in struct {
		QueueURL                             string
		MaxNumberOfMessages, WaitTimeSeconds int
	}
	if err := json.Unmarshal(body, &in); err != nil || in.QueueURL == "" || in.MaxNumberOfMessages > 10 || in.WaitTimeSeconds > 20 {
		writeFault(w, "sqs:ReceiveMessage", &AWSFault{Status: http.StatusBadRequest, Code: "InvalidParameterValue", Message: "of ReceiveMessage"})
		return
	}
	over := time.NewTimer(time.Duration(in.WaitTimeSeconds) * time.Second)
	defer over.Stop()
	for {
		messages, arrived := a.take(max(in.MaxNumberOfMessages, 1))
		if len(messages) > 0 {
			writeJSON(w, http.StatusOK, map[string]any{"Messages": messages})
			return
		}
		select {
		case <-arrived:
		case <-over.C:
			writeJSON(w, http.StatusOK, map[string]any{})
			return
		case <-r.Context().Done():
			return
		}
	}
}

// take receives messages that are visible.
func (a *AWS) take(most int) (out []map[string]string, arrived <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for i := range a.queue {
		m := &a.queue[i]
		if now.Before(m.visible) || len(out) == most {
			continue
		}
		a.receipts++
		m.receipt, m.visible = fmt.Sprintf("receipt-%d", a.receipts), now.Add(invisible)
		sum := md5.Sum([]byte(m.body))
		out = append(out, map[string]string{
			"MessageId": m.receipt, "ReceiptHandle": m.receipt, "Body": m.body, "MD5OfBody": hex.EncodeToString(sum[:]),
		})
	}
	return out, a.arrived
}

func (a *AWS) deleteMessageBatch(w http.ResponseWriter, body []byte) {
	var in struct {
		Entries []struct {
			ID, ReceiptHandle string
		}
	}
	if err := json.Unmarshal(body, &in); err != nil {
		writeFault(w, "sqs:DeleteMessageBatch", &AWSFault{Status: http.StatusBadRequest, Code: "InvalidParameterValue", Message: err.Error()})
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	done := []map[string]string{}
	for _, e := range in.Entries {
		a.queue = slices.DeleteFunc(a.queue, func(m sqsMessage) bool { return m.receipt == e.ReceiptHandle })
		done = append(done, map[string]string{"Id": e.ID})
	}
	writeJSON(w, http.StatusOK, map[string]any{"Successful": done, "Failed": []any{}})
}
