// Package graph draws a directed graph without cycles with box-drawing
// characters, for a terminal: layers from top to bottom, a box for each node,
// edges in the channels between. It knows nothing about tasks.
//
// Nodes are assigned to layers by their longest path from a root. An edge that skips
// layers gets an invisible node in each of them. Within a layer, nodes are ordered by
// the positions of their neighbours, and moved towards them. In a channel, every node
// has one row for its outgoing edges; incoming edges join above the node. A line that
// crosses another without joining it passes under it.
package graph
