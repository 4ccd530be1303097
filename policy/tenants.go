package policy

import (
	"slices"
	"strings"
	"sync"
)

// tenantDomains lists domains below which a stranger gets a name by opening an
// account, and which the Public Suffix List does not have: it lists a domain
// only when its owner asks for that. A suggestion never has a wildcard at or
// below one of them. It is public knowledge, and never complete: what else
// holds a suggestion back is in readsAsService.
var tenantDomains = sync.OnceValue(func() map[string]bool {
	all := map[string]bool{}
	for _, list := range []string{tenantClouds, tenantNetworks, tenantData, tenantProducts} {
		for name := range strings.FieldsSeq(list) {
			all[name] = true
		}
	}
	return all
})

// Clouds: services and customers' resources stand side by side in them.
const tenantClouds = `
amazonaws.com amazonaws.com.cn amazonaws.eu api.aws on.aws awsapps.com awsglobalaccelerator.com aws.dev aws.amazon.com
c2s.ic.gov sc2s.sgov.gov cloud.adc-e.uk csp.hci.ic.gov api.amazonwebservices.com.cn on.amazonwebservices.com.cn
windows.net azure.com azure.net azure-api.net azurecr.io azure-devices.net azuredatabricks.net azurecontainer.io
azurecontainerapps.io azurehdinsight.net azurewebsites.net azureedge.net azurefd.net visualstudio.com sharepoint.com
onmicrosoft.com microsoftonline.com dynamics.com powerapps.com servicebus.windows.net vault.azure.net
googleapis.com googleusercontent.com cloudfunctions.net pkg.dev gcr.io goog withgoogle.com firebaseio.com firebaseapp.com
oraclecloud.com oraclecloudapps.com cloud.ibm.com appdomain.cloud bluemix.net aliyuncs.com myqcloud.com myhuaweicloud.com
digitaloceanspaces.com ondigitalocean.app ondigitalocean.com linodeobjects.com vultrobjects.com scw.cloud ovh.net
backblazeb2.com wasabisys.com storjshare.io cloudflarestorage.com idrivee2.com exo.io hetzner.com your-objectstorage.com`

// Networks: delivery, tunnels, and hosting under a shared name.
const tenantNetworks = `
akamaihd.net akamaized.net akamaistream.net akamai.net akamaiedge.net edgekey.net edgesuite.net edgecastcdn.net
fastly.net fastlylb.net cloudflare.net cdn77.org b-cdn.net kxcdn.com stackpathdns.com stackpathcdn.com
hwcdn.net llnwd.net lswcdn.net gcdn.co imgix.net cloudinary.com jsdelivr.net
ngrok.io ngrok.app ngrok.dev ngrok-free.app trycloudflare.com loca.lt localtunnel.me serveo.net pagekite.me
herokudns.com heroku.com netlify.com vercel.com railway.app render.com surge.sh glitch.me replit.app replit.dev
webhook.site pipedream.net requestbin.com requestbin.net beeceptor.com hookdeck.com interact.sh oast.fun oast.pro
burpcollaborator.net oastify.com dnslog.cn canarytokens.com mockbin.org ts.net zerotier.com`

// Data: stores, warehouses and streams, of which everybody can have one.
const tenantData = `
snowflakecomputing.com snowflakecomputing.cn databricks.com mongodb.net mongodb-dev.net mongodb.com redislabs.com
redis-cloud.com rediscloud.com upstash.io planetscale.com psdb.cloud psdb.com neon.tech cockroachlabs.cloud
supabase.co supabase.com fauna.com aivencloud.com timescaledb.io tsdb.cloud influxdata.com clickhouse.cloud
confluent.cloud confluent.io cloudamqp.com cloudkarafka.com elephantsql.com mlab.com elastic-cloud.com elastic.co
es.io found.io bonsaisearch.net algolia.net algolianet.com typesense.net pinecone.io weaviate.network weaviate.cloud
qdrant.io qdrant.tech zilliz.com zillizcloud.com meilisearch.io splunkcloud.com sumologic.com logz.io scalyr.com
grafana.net grafana.com honeycomb.io lightstep.com signalfx.com dynatrace.com live.dynatrace.com apps.dynatrace.com
appdynamics.com saas.appdynamics.com ingest.sentry.io sentry.io bugsnag.com rollbar.com papertrailapp.com loggly.com
cloudsmith.io jfrog.io jfrog.com packagecloud.io gemfury.com myget.org sonatype.app quay.io`

// Products: a name for each customer.
const tenantProducts = `
auth0.com okta.com oktapreview.com okta-emea.com onelogin.com pingidentity.com pingone.com duosecurity.com
frontegg.com fusionauth.io workos.com clerk.dev clerk.com stytch.com descope.com kinde.com
zendesk.com freshdesk.com freshservice.com intercom.com helpscout.net statuspage.io atlassian.net jira.com bitbucket.io
service-now.com servicenow.com salesforce.com force.com my.salesforce.com cloudforce.com salesforce-sites.com
hubspot.com hs-sites.com marketo.com mktorest.com mktoresp.com pardot.com eloqua.com exacttarget.com
marketingcloudapis.com workday.com myworkday.com bamboohr.com namely.com greenhouse.io lever.co successfactors.com
ariba.com netsuite.com coupahost.com concursolutions.com sapsf.com hana.ondemand.com ondemand.com
myshopify.com shopify.com bigcommerce.com mybigcommerce.com commercetools.com squarespace.com wixsite.com
slack.com discord.com webex.com zoom.us ringcentral.com twil.io twilio.com sendgrid.net mailgun.org mailgun.net
segment.io segment.com mixpanel.com amplitude.com braze.com braze.eu customer.io iterable.com pendo.io
launchdarkly.com split.io optimizely.com contentful.com ctfassets.net prismic.io sanity.io storyblok.com
docusign.net box.com boxcloud.com egnyte.com sharefile.com citrixonline.com citrix.com dropboxusercontent.com
pagerduty.com opsgenie.com incident.io victorops.com looker.com cloud.looker.com tableau.com online.tableau.com
qlikcloud.com domo.com sisense.com thoughtspot.cloud periscopedata.com retool.com airtable.com notion.site
gitlab.io gitpod.io codesandbox.io stackblitz.io ghe.com githubpreview.dev app.github.dev
cloudinary.com uploadcare.com filestackcontent.com wordpress.com blogspot.com tumblr.com substack.com medium.com
zapier.com ifttt.com workato.com tray.io n8n.cloud make.com openai.azure.com huggingface.co hf.space endpoints.huggingface.cloud
chargify.com recurly.com chargebee.com zuora.com avalara.com taxjar.com shipstation.com`

// tenanted returns the domain of tenants that a name is or lies below, "" when
// none is known.
func tenanted(name string) string {
	all := tenantDomains()
	for {
		if all[name] {
			return name
		}
		_, rest, found := strings.Cut(name, ".")
		if !found {
			return ""
		}
		name = rest
	}
}

// serviceWords returns the words that parts of one service are called by. Names
// that customers choose are seldom made of them, so names which are say that
// one owner gives them all out.
var serviceWords = sync.OnceValue(func() []string { return sortedWords(tradeWords) })

// placeWords returns the words for where a part of a service runs. Customers'
// names are made with them, too: acme-prod, acme-eu.
var placeWords = sync.OnceValue(func() []string { return sortedWords(regionWords) })

func sortedWords(text string) []string {
	words := strings.Fields(text)
	slices.Sort(words)
	return words
}

const tradeWords = `
about account accounts ack activity admin agent agents alert alerts analytics api apis app apps archive archives
asset assets async audit auth backend backup batch beacon billing binaries binary blob bootstrap browser bucket build builds bulk cache
cdn cert certs checkout checks ci client clients cloud code collect collector collectors command config configuration
connect connector console container containers content control core crash crl dashboard data db debug deb default deploy deps
developer developers devices dist dl dns doc docs download downloads edge email embed endpoint event events export feed feeds
file files font fonts forms forwarder frontend ftp fwd gateway geo graph graphql grpc gw health help
hooks host hub id identity image images img import inbound index infra ingest ingress input insights install instance instrumentation
intake integration internal io iot issuer job jobs js key keys kms lb lib libs license list lists load log logging
login logs mail main maintenance management maps master media message messages messaging meta metadata metric metrics mirror
mirrors mobile monitor monitoring network nlb node nodes notify notification notifications ns ntp oauth obs ocsp oidc
open ops orchestrator origin otel otlp out outbound package packages partner partners pay payment payments ping pkg pkgs pki platform
policy pop portal post process processes profile profiles profiling proxy prometheus public publish pull push
query queue ratelimit read receiver recommendations redirect registry relay release releases remote
replay replica repo report reporting reports repository repositories repos resource resources rest router rpc rpm rum runtime
sbom scan scim sdk search secure security sentinel server service services session sessions shard sign signal
smtp snapshot snapshots socket source sources spans ssh sso static stats status
storage store stream streaming streams stun submit support svc sync synthetics sys system tag tags task tcp telemetry
tile tiles time tls token tokens trace tracer traces tracing track tracker tracking traffic turn tus ui update updates upgrade upload
uploads url usage user users vault verify version video wallet web webapp webhook webhooks websocket worker workers write
ws wss www xml http https udp mqtt amqp k8s kube kubernetes lambda serverless
a b c d e f g h i j k l m n o p q r s t u v w x y z`

const regionWords = `
alpha beta dev development live preview primary private prod production public qa replica sandbox secondary stage staging
standby test tests testing uat us eu uk de fr jp sg au br in kr ie gov ap af ca la me na sa emea apac
east west north south central northeast northwest southeast southwest region zone primary
gcp aws azure global local int ext`

// readsAsService reports whether labels read as the parts of one service: two
// in three are made of words of the trade, and none looks drawn by a machine.
func readsAsService(labels []string) bool {
	plain := 0
	for _, label := range labels {
		if drawnLabel(label) {
			return false
		}
		if serviceLabel(label) {
			plain++
		}
	}
	return plain*3 >= len(labels)*2
}

// serviceLabel reports whether a label is made of words of the trade and small
// numbers alone. A number says nothing by itself: customers have numbers.
func serviceLabel(label string) bool {
	words := 0
	for part := range strings.FieldsFuncSeq(label, func(c rune) bool { return c == '-' || c == '_' }) {
		word := strings.TrimRight(part, "0123456789")
		if len(part)-len(word) > 3 {
			return false
		}
		if word == "" || knownWord(placeWords(), word) {
			continue
		}
		if !knownWord(serviceWords(), word) {
			return false
		}
		words++
	}
	return words > 0
}

func knownWord(sorted []string, word string) bool {
	_, ok := slices.BinarySearch(sorted, word)
	return ok
}

// drawnLabel reports whether a label looks as if a machine had drawn it: a
// long run without the shape of words.
func drawnLabel(label string) bool {
	for part := range strings.FieldsFuncSeq(label, func(c rune) bool { return c == '-' || c == '_' }) {
		if drawnPart(part) {
			return true
		}
	}
	// A key written in groups: 8-4-4-4-12 of hexadecimal digits, and the like.
	bare := strings.ReplaceAll(label, "-", "")
	return len(bare) >= 24 && isAll(bare, isHexDigit)
}

func drawnPart(part string) bool {
	if len(part) < 10 {
		return false
	}
	digits, changes, consonants, run := 0, 0, 0, 0
	for i := range len(part) {
		c := part[i]
		switch {
		case isDigit(c):
			digits++
			run = 0
		case strings.IndexByte("aeiouy", c) >= 0:
			run = 0
		default:
			run++
			consonants = max(consonants, run)
		}
		if i > 0 && isDigit(c) != isDigit(part[i-1]) {
			changes++
		}
	}
	switch {
	case digits == len(part):
		return true // an account's number, a time
	case len(part) >= 16 && isAll(part, isHexDigit):
		return true
	}
	return changes >= 4 || consonants >= 6 || (len(part) >= 20 && (changes >= 2 || consonants >= 5))
}
