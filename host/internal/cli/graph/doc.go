// Package graph draws a directed graph without cycles with box-drawing
// characters, for a terminal: layers from top to bottom, a box for each node,
// edges in the channels between. It knows nothing of tasks.
//
// Nodes are put in layers by their longest path from a root. An edge that skips
// layers gets an invisible node in each. Within a layer nodes are ordered by
// where their neighbours are, and moved towards them. In a channel every node
// has one row for the edges that leave it; edges that enter a node join above
// it. A line that crosses another without joining it passes under it.
package graph
