package history_test

import (
	"testing"

	"github.com/sallyport/sallyport/logging/history"
)

func TestBaselinesGo(t *testing.T) {
	onEach(t, func(t *testing.T, store string) {
		s := open(t, history.Config{Store: store})
		for _, b := range [][2]string{{"a/1", "one"}, {"a/2", "two"}, {"b/1", "other"}, {"a/2", "two again"}} {
			if err := s.SaveBaseline(t.Context(), b[0], []byte(b[1])); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := s.Baselines(t.Context(), "a/"); err != nil || len(got) != 2 || string(got["a/2"]) != "two again" {
			t.Errorf("%q, %v", got, err)
		}
		for range 2 { // the second time there is nothing to take away
			if err := s.SaveBaseline(t.Context(), "a/2", nil); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := s.Baselines(t.Context(), "a/"); err != nil || len(got) != 1 || string(got["a/1"]) != "one" {
			t.Errorf("after it was taken away: %q, %v", got, err)
		}
	})
}
