package main

import (
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strings"
)

// panel is one set of bars of the plot.
type panel struct {
	title    string
	scenario string
	way      way
	load     string
	value    func(row) float64
}

// panels are what the plot shows: what the proxy spends on each kind of work.
// Less is better everywhere.
func panels() []panel {
	perUnit := func(r row) float64 { return r.PerUnit }
	return []panel{
		{"CONNECT: CPU µs for a new tunnel", "tunnels", wayConnect, "tunnels-32", perUnit},
		{"SNI: CPU µs for a new tunnel", "tunnels", waySNI, "tunnels-32", perUnit},
		{"CONNECT: CPU s for a GB down, 8 streams", "bulk", wayConnect, "down-8", perUnit},
		{"SNI: CPU s for a GB down, 8 streams", "bulk", waySNI, "down-8", perUnit},
		{"CONNECT: added µs of a 1 B round trip", "trips", wayConnect, "trip-1", func(r row) float64 { return r.AddedP50 }},
		{"SNI: added µs of a 1 B round trip", "trips", waySNI, "trip-1", func(r row) float64 { return r.AddedP50 }},
		{"CONNECT: KiB of an idle tunnel, RSS and kernel", "idle", wayConnect, "idle-few", idleWeight},
		{"SNI: KiB of an idle tunnel, RSS and kernel", "idle", waySNI, "idle-few", idleWeight},
		{"HTTP: CPU µs for a request", "http", wayHTTP, "http-32", perUnit},
		{"Inspected: CPU s for a GB down, 8 streams", "inspect", wayInspect, "download-8", perUnit},
		{"Inspected: CPU s for a GB up, 8 streams", "inspect", wayInspect, "upload-8", perUnit},
		{"Inspected: CPU µs for a GET of 1 KiB", "inspect", wayInspect, "get-32", perUnit},
	}
}

func idleWeight(r row) float64 { return r.RSS + r.Kernel }

// Measures of the plot, in pixels.
const (
	plotWidth  = 880
	panelWidth = 420
	barHeight  = 18
	barGap     = 4
	labelWidth = 110
	barRoom    = 230
	titleRoom  = 34
)

// svg draws the panels in two columns; those without figures are left out.
func (r *results) svg() string {
	var body strings.Builder
	heights := [2]int{30, 30}
	for _, p := range panels() {
		bars := r.bars(p)
		if len(bars) == 0 {
			continue
		}
		column := 0
		if heights[1] < heights[0] {
			column = 1
		}
		heights[column] += draw(&body, p.title, bars, 10+column*(panelWidth+30), heights[column])
	}
	height := max(heights[0], heights[1])
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="12">
<rect width="100%%" height="100%%" fill="#ffffff"/>
<text x="10" y="20" font-size="13" fill="#444444">What the proxy costs; shorter is better. %s, %s.</text>
%s</svg>
`, plotWidth, height, plotWidth, height, r.Machine.When.Format("2006-01-02"), escape(r.Options.Placement.String()), body.String())
}

// bar is a subject's figure in a panel.
type bar struct {
	name  string
	value float64
}

// bars returns a panel's, the shortest first. The direct way costs the proxy
// nothing and is left out.
func (r *results) bars(p panel) []bar {
	var out []bar
	for _, row := range r.rows(p.scenario, p.way, p.load) {
		if v := p.value(row); row.Failure == "" && row.Subject != "direct" && !math.IsNaN(v) {
			out = append(out, bar{row.Subject, max(v, 0)})
		}
	}
	slices.SortStableFunc(out, func(a, b bar) int {
		switch {
		case a.value < b.value:
			return -1
		case a.value > b.value:
			return 1
		default:
			return 0
		}
	})
	return out
}

// draw draws a panel and returns its height. Bars that are far longer than
// the rest are cut, or the rest could not be told apart.
func draw(b *strings.Builder, title string, bars []bar, x, y int) int {
	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="600" fill="#111111">%s</text>`+"\n", x, y+20, escape(title))
	var values []float64
	for _, v := range bars {
		values = append(values, v.value)
	}
	full := min(slices.Max(values), 4*max(median(values), 1e-9))
	for i, v := range bars {
		top := y + titleRoom + i*(barHeight+barGap)
		length := barRoom * min(v.value/max(full, 1e-9), 1)
		text := number(v.value)
		if v.value > full {
			text += " (cut)"
		}
		fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="end" fill="#333333">%s</text>`, x+labelWidth-6, top+13, escape(v.name))
		fmt.Fprintf(b, `<rect x="%d" y="%d" width="%.1f" height="%d" fill="%s"/>`, x+labelWidth, top, length, barHeight, colour(v.name))
		fmt.Fprintf(b, `<text x="%.1f" y="%d" fill="#333333">%s</text>`+"\n", float64(x+labelWidth)+length+5, top+13, text)
	}
	return titleRoom + len(bars)*(barHeight+barGap) + 14
}

func colour(subject string) string {
	switch {
	case subject == base:
		return "#0f7b6c"
	case strings.HasPrefix(subject, base):
		return "#7cc4b8"
	case subject == "floor" || strings.HasPrefix(subject, "go") || subject == "tcpproxy":
		return "#c9ccd3"
	default:
		return "#8a93a6"
	}
}

func escape(s string) string {
	var b strings.Builder
	if xml.EscapeText(&b, []byte(s)) != nil {
		return ""
	}
	return b.String()
}
