"""The guard at the gateway: says of each request who it is, and refuses whom the site has disabled or locked out.

nginx asks it before it hands a request on (auth_request, over a socket in a folder that only these two see). It holds
no right of its own: who somebody is, the tracker behind the door says, asked with that request's own credentials.
"""
