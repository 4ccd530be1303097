package budget

import (
	"math"
	"testing"
	"testing/synctest"
	"time"
)

// What others claim to have sent cannot overflow into a budget without end.
func TestSharesOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &shelf{}
		a, stopA := start(t, store, "a", nil)
		b, stopB := start(t, store, "b", nil)
		c, stopC := start(t, store, "c", nil)
		a.Account(daily(100)).Charge(math.MaxInt64)
		b.Account(daily(100)).Charge(math.MaxInt64 - 5)
		c.Account(daily(100)).Charge(50)
		<-time.After(2 * DefaultEvery)
		synctest.Wait()
		if !spent(c, daily(100)) {
			t.Errorf("%+v", c.Balances())
		}
		stopA()
		stopB()
		stopC()
	})
}
