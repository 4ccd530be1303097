package anomaly

import (
	"math"
	"slices"
)

// kept is how many hours a series has: five weeks.
const kept = 5 * 168

// series is one figure of one caller, hour by hour. Hours without anything are
// zero from since on.
type series struct {
	since  int64 // the first hour that counts
	values [kept]float32
	hours  [kept]int64 // which hour each value is of
}

func (s *series) set(hour int64, v float64) {
	i := int(hour % kept)
	s.values[i], s.hours[i] = float32(v), hour
}

func (s *series) at(hour int64) float64 {
	if i := int(hour % kept); s.hours[i] == hour {
		return float64(s.values[i])
	}
	return 0
}

// The bases of a norm.
const (
	basisWeek = "hour_of_week"
	basisDay  = "hour_of_day"
	basisAll  = "all"
)

// norm is what is usual for an hour.
type norm struct {
	basis  string
	n      int     // hours it rests on
	median float64 // of these
	spread float64 // their median deviation, made comparable with a standard deviation
	ratio  float64 // the same of their logarithms
	upper  float64 // nine in ten lie below, or at it
	most   float64 // of all hours that are kept
}

// norm returns what is usual for an hour, by what was before it. It reports
// false before there is a day.
func (s *series) norm(hour int64, unit float64) (norm, bool) {
	age := hour - s.since
	var n norm
	var samples []float64
	take := func(step int64, times int) {
		for k := 1; k <= times; k++ {
			for d := int64(-1); d <= 1; d++ {
				if h := hour - int64(k)*step + d; h >= s.since && h < hour && hour-h < kept {
					samples = append(samples, s.at(h))
				}
			}
		}
	}
	switch {
	case age >= 3*168:
		n.basis = basisWeek
		take(168, 4)
	case age >= 3*24:
		n.basis = basisDay
		take(24, int(min(age/24, 14)))
	case age >= 24:
		n.basis = basisAll
		for h := s.since; h < hour; h++ {
			samples = append(samples, s.at(h))
		}
	default:
		return norm{}, false
	}
	n.n = len(samples)
	slices.Sort(samples)
	n.median, n.upper = middle(samples), samples[int(math.Ceil(.9*float64(len(samples))))-1]
	n.spread = deviation(samples)
	logs := make([]float64, len(samples))
	for i, v := range samples {
		logs[i] = math.Log(v + unit)
	}
	n.ratio = deviation(logs)
	if n.basis == basisDay { // what comes once a week has come once or twice
		for d := int64(-1); d <= 1; d++ {
			n.upper = max(n.upper, s.at(hour-168+d), s.at(hour-336+d))
		}
	}
	for h := max(s.since, hour-kept+1); h < hour; h++ {
		n.most = max(n.most, s.at(h))
	}
	return n, true
}

// limit is what an hour must exceed to be out of the ordinary: by deviations in
// sums and in ratios, by what one hour in ten has, and by a floor.
func (n *norm) limit(floor, unit float64) float64 {
	return max(
		floor,
		3*n.median,
		n.median+8*n.spread,
		(n.median+unit)*math.Exp(5*n.ratio),
		1.5*n.upper,
	)
}

// middle is the median of sorted samples.
func middle(sorted []float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[i]
	}
	return (sorted[i-1] + sorted[i]) / 2
}

// deviation is the median of the distances from the median, times what makes it
// a standard deviation where the samples are normally distributed.
func deviation(samples []float64) float64 {
	sorted := slices.Sorted(slices.Values(samples))
	m := middle(sorted)
	for i, v := range sorted {
		sorted[i] = math.Abs(v - m)
	}
	slices.Sort(sorted)
	return 1.4826 * middle(sorted)
}
