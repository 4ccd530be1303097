package main

import (
	"math"
	"slices"
)

// row is a subject in the table of a load: medians over the repeats.
type row struct {
	Subject string
	Filters bool
	Failure string // the last, when no repeat went well

	Rate, PerUnit, P50, P99 float64
	Errors                  int
	Foreign                 float64
	Opened                  float64
	RSS, Kernel, Files      float64
	StartMillis             float64
	AddedP50                float64 // over direct's
	AddedKernel             float64 // over direct's: without the ends' sockets

	// How many times better the base is: the median of the repeats' own
	// ratios, because what drifts between repeats drifts for both.
	RateRatio, CPURatio float64
}

// rows summarises a load for one way, in the order of the subjects' first
// appearance.
func (r *results) rows(scenario string, w way, loadName string) []row {
	var subjects []string
	by := make(map[string][]measure)
	for _, m := range r.Measures {
		if m.Scenario != scenario || m.Way != w || m.Load != loadName {
			continue
		}
		if by[m.Subject] == nil {
			subjects = append(subjects, m.Subject)
		}
		by[m.Subject] = append(by[m.Subject], m)
	}
	against := by[base]
	if scenario == "rules" {
		against = by[base+"-10"]
	}
	var rows []row
	for _, name := range subjects {
		rows = append(rows, summarise(name, by[name], against, by["direct"]))
	}
	return rows
}

func summarise(name string, ms, against, direct []measure) row {
	out := row{Subject: name}
	good := sound(ms)
	if len(good) == 0 {
		if len(ms) > 0 {
			out.Failure = ms[len(ms)-1].Failure
		}
		return out
	}
	of := func(field func(measure) float64) float64 { return medianOf(good, field) }
	out.Filters = good[0].Filters
	out.Rate, out.PerUnit = of(rateOf), of(perUnitOf)
	out.P50, out.P99 = of(func(m measure) float64 { return m.P50 }), of(func(m measure) float64 { return m.P99 })
	out.Foreign, out.StartMillis = of(func(m measure) float64 { return m.Foreign }), of(func(m measure) float64 { return m.StartMillis })
	out.Opened, out.RSS = of(func(m measure) float64 { return float64(m.Opened) }), of(func(m measure) float64 { return m.RSS })
	out.Kernel, out.Files = of(func(m measure) float64 { return m.Kernel }), of(func(m measure) float64 { return m.Files })
	for _, m := range good {
		out.Errors += m.Errors
	}
	out.AddedP50 = out.P50 - medianOf(sound(direct), func(m measure) float64 { return m.P50 })
	out.AddedKernel = out.Kernel - medianOf(sound(direct), func(m measure) float64 { return m.Kernel })
	out.RateRatio = paired(against, good, rateOf)
	out.CPURatio = paired(good, against, perUnitOf)
	return out
}

func rateOf(m measure) float64    { return m.Rate }
func perUnitOf(m measure) float64 { return m.PerUnit }

// sound leaves out what failed.
func sound(ms []measure) []measure {
	return slices.DeleteFunc(slices.Clone(ms), func(m measure) bool { return m.Failure != "" })
}

func medianOf(ms []measure, field func(measure) float64) float64 {
	var values []float64
	for _, m := range ms {
		values = append(values, field(m))
	}
	return median(values)
}

// paired is the median of a's field over b's, each in the same repeat.
func paired(a, b []measure, field func(measure) float64) float64 {
	var ratios []float64
	for _, x := range sound(a) {
		for _, y := range sound(b) {
			if x.Repeat == y.Repeat {
				ratios = append(ratios, ratio(field(x), field(y)))
			}
		}
	}
	return median(ratios)
}

// foreign is the median of what others used during all the run, in CPUs.
func (r *results) foreign() float64 {
	m := medianOf(sound(r.Measures), func(m measure) float64 { return m.Foreign })
	if math.IsNaN(m) {
		return 0
	}
	return m
}
